"""Any folder of videos and sounds, with or without a CSV that names and labels them."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data_prep.check import EXAMPLES
from data_prep.column_map import MappedColumn, emotion_word, labels_of, mapped_column
from data_prep.corpus import SOURCE, VALIDATION_SHARE, Argument, Corpus
from data_prep.held_out import keep_together
from data_prep.labels import columns
from data_prep.manifest import COLUMNS, Row, read_manifest
from data_prep.sources import (
    SPLIT_WORDS,
    SourceClip,
    hashed_split,
    media_files,
    standard_emotion,
    standard_split,
    with_unique_ids,
    without_missing,
)
from data_prep.tables import NO_VALUE
from mmpretrain.listing import readable

LONGEST_SEC = 1e7  # a time beyond this is counted in other units, or from another beginning than the file's


def read(
    source: Path,
    manifest: Path | None,
    *,
    validation_share: float,
    split_by: str,
    encoding: str = "",
    column: Sequence[MappedColumn] = (),
    emotion_word: Sequence[tuple[str, str]] = (),
) -> list[SourceClip]:
    """The clips of a folder: those its manifest names, or every media file where there is no manifest.

    A clip's id is its path under `source` without the suffix, as far as it is text (`readable`). Where the manifest has
    no split, about `validation_share` of the clips (or speakers, with split_by="speaker") are `validation`, the others
    `train`. encoding: of the manifest. column: what its columns are called here. emotion_word: (word, our emotion).
    Raises FileNotFoundError or ValueError for a source or manifest that cannot be used.
    """
    files = media_files(source)
    if manifest is None:
        given = [f"--encoding {encoding}"] if encoding else []
        given += [f"--column {one.theirs}={one.ours}" for one in column]
        given += [f"--emotion-word {theirs}={ours}" for theirs, ours in emotion_word]
        given += ["--split-by speaker"] if split_by == "speaker" else []
        if given:
            raise ValueError(f"{given[0]} is of a manifest; give --manifest, or leave it out")
        clips = [_clip(source, path, {}, validation_share, split_by) for path in files]
        return with_unique_ids(without_missing(clips))
    rows = read_manifest(manifest, encoding, [(mapped.theirs, mapped.ours) for mapped in column])
    words = _emotion_words(emotion_word)
    _check_split_words(manifest, rows)
    names_splits = any(row.values.get("split") for row in rows)
    places = _Places(source, manifest, files)
    clips = []
    for row in rows:
        named = row.values.get("path", "")
        path = places.find(named) if named.strip() else manifest
        word = row.values.get("emotion", "")
        values = row.values | {"emotion": words.get(word.casefold(), word)}
        clip = _labelled(_clip(source, path, values, validation_share, split_by), row, words, column)
        if not named.strip():
            clip = dataclasses.replace(
                clip, clip_id=row.values.get("clip_id") or f"line {row.line}", refused=f"line {row.line} names no path"
            )
        elif row.note and names_splits and "split" not in row.values:
            clip = dataclasses.replace(clip, refused=f"{row.note}, so that its split is not known")
        clips.append(dataclasses.replace(clip, note="; ".join(filter(None, (row.note, clip.note)))))
    if split_by == "speaker":
        _check_speakers(manifest, rows, clips)
    clips = without_missing(clips)
    clips = keep_together(manifest, rows, clips, by_speaker=split_by == "speaker")
    clips = _with_spellings(clips)
    # Ids that rows give come first, so that those made of paths are numbered and not they.
    order = sorted(range(len(rows)), key=lambda i: not (rows[i].values.get("clip_id") or rows[i].values.get("id")))
    numbered = dict(zip(order, with_unique_ids(clips[i] for i in order), strict=True))
    return [numbered[i] for i in range(len(rows))]


def _labelled(clip: SourceClip, row: Row, words: Mapping[str, str], column: Sequence[MappedColumn]) -> SourceClip:
    """With the labels of the columns that were mapped, which are no longer in info, but for the row's own word."""
    notes = (one.note(row.values.get(one.ours, ""), words) for one in column)
    clip = dataclasses.replace(clip, note="; ".join(filter(None, (clip.note, *notes))))
    mapped = {one.ours for one in column if one.kind}
    info = {name: value for name, value in clip.info.items() if name not in mapped}
    if row.values.get("emotion", "").casefold() in words:
        info["emotion"] = row.values["emotion"]
    try:
        labels = labels_of(column, row.values, words)
    except ValueError as error:
        return dataclasses.replace(clip, info=info, refused=clip.refused or str(error))
    return dataclasses.replace(clip, info=info, labels=clip.labels | labels)


def _check_speakers(manifest: Path, rows: Sequence[Row], clips: Sequence[SourceClip]) -> None:
    """Prints how many clips are of nobody. Raises ValueError where all are."""
    nameless = [i for i, clip in enumerate(clips) if not clip.speaker]
    if len(nameless) == len(clips):
        raise ValueError(
            f"--split-by speaker: no row of --manifest {manifest} names a speaker; fill the column `speaker`, say with "
            "--column which one it is, or leave --split-by out"
        )
    if alone := [clips[i].clip_id for i in nameless if not (rows[i].values.get("split") or clips[i].refused)]:
        print(
            f"note: --split-by speaker: {len(alone):,} clips name no speaker, such as {alone[0]}, and are held out "
            "each by itself, whoever it is of"
        )


def _emotion_words(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    words: dict[str, str] = {}
    for theirs, ours in given:
        if (before := words.setdefault(theirs, ours)) != ours:
            raise ValueError(f"--emotion-word {theirs} is given as {before} and as {ours}; leave one out")
    return words


def _check_split_words(manifest: Path, rows: Iterable[Row]) -> None:
    """Raises ValueError if a row has a word for its split that nobody knows: it might be for `test`."""
    lines: dict[str, list[int]] = {}
    for row in rows:
        if (word := row.values.get("split", "")) and standard_split(word) is None:
            lines.setdefault(word, []).append(row.line)
    if lines:
        said = [f"{word!r} (line {', '.join(map(str, of[:3]))}{', ...' * (len(of) > 3)})" for word, of in lines.items()]
        known = "; ".join(f"{split}: {', '.join(words)}" for split, words in SPLIT_WORDS.items())
        raise ValueError(
            f"--manifest {manifest} has splits that are none: {', '.join(said[:8])}{', ...' * (len(said) > 8)}; write "
            f"one of these words ({known}), or nothing, then --validation-share decides between train and validation"
        )


@dataclasses.dataclass(frozen=True)
class _Places:
    """Where the files of a manifest may be."""

    source: Path
    manifest: Path
    files: list[Path]

    def find(self, named: str) -> Path:
        """The file that is meant: under the source, else beside the manifest, else one folder above it."""
        parents = self.source, self.manifest.parent, self.manifest.parent.parent
        words = dict.fromkeys((named, named.strip(), named.strip().replace("\\", "/")))
        places = [base / word for word in words for base in parents]
        there = next((place for place in places if os.path.isfile(place)), None)
        return there or self._by_name.get(_plain(named.strip().replace("\\", "/"))) or self.source / named.strip()

    @functools.cached_property
    def _by_name(self) -> dict[str, Path]:
        """The files of the source by their names in letters, however those are put together (as macOS does)."""
        return {_plain(path.relative_to(self.source).as_posix()): path for path in self.files}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", readable(name)).removeprefix("./")


def _clip(source: Path, path: Path, row: dict[str, str], validation_share: float, split_by: str) -> SourceClip:
    notes, refused = [], ""
    try:
        start_sec, end_sec = _part(row)
    except ValueError as error:
        start_sec, end_sec, refused = 0.0, None, str(error)
    info = {key: value for key, value in row.items() if value and key not in COLUMNS}
    emotion = standard_emotion(row.get("emotion", ""))
    if emotion is None:
        notes.append(f"emotion {row['emotion']} is not one of ours and kept in info only")
        info["emotion"] = row["emotion"]
    clip_id = readable(row.get("clip_id") or row.get("id") or _default_id(source, path))
    speaker = unicodedata.normalize("NFC", readable(row.get("speaker", "")))
    if speaker and speaker.casefold() in NO_VALUE:
        notes.append(f"speaker {speaker} is no name, and taken for none")
        speaker = ""
    if (text := row.get("text", "")) and text.casefold() in NO_VALUE:
        notes.append(f"text {text} is taken for what is spoken; where nobody knows, leave the cell empty")
    split = standard_split(row.get("split", ""))
    if split is None:
        split = hashed_split(speaker if split_by == "speaker" and speaker else clip_id, validation_share)
    return SourceClip(
        clip_id=clip_id,
        path=path,
        split=split,
        speaker=speaker,
        labels={"emotion": emotion or "", "text": text},
        info=info,
        start_sec=start_sec,
        end_sec=end_sec,
        refused=refused,
        note="; ".join(notes),
    )


def _with_spellings(clips: list[SourceClip]) -> list[SourceClip]:
    """The clips, with a note where the speaker may be one under another spelling. Prints which."""
    of_person: dict[str, dict[str, None]] = {}
    for clip in clips:
        of_person.setdefault(_without_spelling(clip.speaker), {})[clip.speaker] = None
    doubtful = [" = ".join(map(repr, names)) for names in of_person.values() if len(names) > 1]
    if not doubtful:
        return clips
    more = f" and {len(doubtful) - EXAMPLES:,} more" if len(doubtful) > EXAMPLES else ""
    print(
        "note: speakers whose names differ only in case, blanks or Unicode form: "
        f"{', '.join(doubtful[:EXAMPLES])}{more}; they are taken for people of their own: where they "
        "are one, write one name"
    )
    noted = []
    for clip in clips:
        if others := [name for name in of_person[_without_spelling(clip.speaker)] if name != clip.speaker]:
            said = (
                f"speaker {clip.speaker!r} is written {', '.join(map(repr, others))} too, and taken for another person"
            )
            clip = dataclasses.replace(clip, note="; ".join(filter(None, (clip.note, said))))
        noted.append(clip)
    return noted


def _without_spelling(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _default_id(source: Path, path: Path) -> str:
    path, source = (Path(os.path.abspath(each)) for each in (path, source))
    inside = path.relative_to(source) if path.is_relative_to(source) else Path(path.name)
    return readable(inside.with_suffix("").as_posix())


def _part(row: dict[str, str]) -> tuple[float, float | None]:
    """start_sec and end_sec of a row. Raises ValueError if they are no times."""
    start, end = (_seconds(column, row.get(column, "")) for column in ("start_sec", "end_sec"))
    start = start or 0.0
    if not 0 <= start < (math.inf if end is None else end):
        raise ValueError(f"start_sec {start} to end_sec {end} is not a part of a file")
    return start, end


def _seconds(column: str, word: str) -> float | None:
    if not word:
        return None
    try:
        seconds = float(word if "_" not in word else "")
    except ValueError:
        comma = re.fullmatch(r"[+-]?\d*,\d+", word)
        remedy = f"write {word.replace(',', '.')}" if comma else "write seconds, such as 75.5"
        raise ValueError(f"{column} {word} is not a number; {remedy}") from None
    if not abs(seconds) < LONGEST_SEC:  # nor NaN
        raise ValueError(f"{column} {word} is no time in a file; write seconds from its beginning, such as 75.5")
    return seconds


LAYOUT = """\
Every sound and video file below --source becomes a clip, or, with --manifest, every row of a CSV file:

  path,speaker,text,emotion,split,start_sec,end_sec
  anna/01.mp4,anna,hello there,happy,train,,
  talk.mp4,ben,,,,12.4,17.0

Only `path` is needed: relative to --source, to the CSV's own folder or to the folder above it. `clip_id` may name the
clip. start_sec and end_sec cut a part out of a file. Any other column is kept with the clip. Rows without a split are
train or validation by --validation-share; a word for a split that is none is refused. Cells are parted by commas (or by
`;`, tabs or `|`, in the first line too); a cell with one in it stands in quotation marks. The file is in UTF-8 (or in
UTF-16 with its mark, or as --encoding says).

A CSV with other columns is read with --column THEIRS=OURS for each: --column puhuja=speaker --column tunne=emotion
--emotion-word ilo=happy. Labels of other kinds are named like ours (--column valenssi=valence:1..9, from its own scale
to ours, -1 to 1; session, dialogue, turn, sentiment, language, ...), or by their kind: --column laatu=class:quality
(class, classes, value or text)."""

CORPUS = Corpus(
    name="folder",
    layout=LAYOUT,
    arguments=(
        SOURCE,
        Argument("manifest", dict(type=Path, metavar="CSV", help="which files, with which labels (see above)")),
        Argument("encoding", dict(default="", metavar="NAME", help="of the CSV, such as cp1252 (default: utf-8)")),
        Argument(
            "split_by",
            dict(choices=("clip", "speaker"), default="clip", help="what is held out whole (default: clip)"),
        ),
        VALIDATION_SHARE,
        Argument(
            "column",
            dict(action="append", default=[], type=mapped_column, metavar="THEIRS=OURS", help="a column (see above)"),
        ),
        Argument(
            "emotion_word",
            dict(action="append", default=[], type=emotion_word, metavar="THEIRS=OURS", help="a word for an emotion"),
        ),
    ),
    read=read,
    labels=columns("emotion", "text"),
    more_labels=lambda column, **_: {mapped.ours: mapped.kind for mapped in column if mapped.kind},
    prepared_name=lambda source, **_: readable(source.resolve().name),
)
