"""Any folder of videos and sounds, with or without a CSV that names and labels them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from data_prep.corpus import SOURCE, VALIDATION_SHARE, Argument, Corpus
from data_prep.sources import SourceClip, hashed_split, media_files, standard_emotion, standard_split, with_unique_ids
from mmpretrain.listing import readable

MANIFEST_COLUMNS = ("path", "clip_id", "id", "speaker", "text", "emotion", "split", "start_sec", "end_sec")


def read(source: Path, manifest: Path | None, *, validation_share: float, split_by: str) -> list[SourceClip]:
    """The clips of a folder: those its manifest names, or every media file where there is no manifest.

    A clip's id is its path under `source` without the suffix. Where the manifest has no split, about
    `validation_share` of the clips (or speakers, with split_by="speaker") are `validation`, the others `train`.
    Raises FileNotFoundError or ValueError for a source or manifest that cannot be used.
    """
    files = media_files(source)
    if manifest is None:
        clips = [_clip(source, path, {}, validation_share, split_by) for path in files]
        return with_unique_ids(clips)
    clips = list(_manifest_clips(source, manifest, validation_share, split_by))
    named = {clip.path.resolve() for clip in clips}
    unnamed = sum(path.resolve() not in named for path in files)
    if unnamed:
        print(f"note: {unnamed} of the {len(files)} media files in {source} are not named in {manifest} and left out")
    return with_unique_ids(clips)


def _manifest_clips(source: Path, manifest: Path, validation_share: float, split_by: str) -> Iterator[SourceClip]:
    if not manifest.is_file():
        raise FileNotFoundError(f"--manifest {manifest} does not exist; give a CSV with a column `path`")
    with open(manifest, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            columns = ", ".join(reader.fieldnames or ()) or "nothing"
            raise ValueError(
                f"--manifest {manifest} has no column `path`; its first line must name the columns, it reads: {columns}"
            )
        for row in reader:
            values = {key: value.strip() for key, value in row.items() if key and isinstance(value, str)}
            if not values.get("path"):
                continue
            yield _clip(source, _resolve(values["path"], source, manifest), values, validation_share, split_by)


def _resolve(named: str, source: Path, manifest: Path) -> Path:
    """The file a manifest means: under the source, else beside the manifest, else one folder above it."""
    places = [base / named for base in (source, manifest.parent, manifest.parent.parent)]
    return next((place for place in places if place.is_file()), places[0])


def _clip(source: Path, path: Path, row: dict[str, str], validation_share: float, split_by: str) -> SourceClip:
    notes, refused = [], ""
    try:
        start_sec, end_sec = _part(row)
    except ValueError as error:
        start_sec, end_sec, refused = 0.0, None, str(error)
    if not path.is_file():
        refused = "the file does not exist"
    info = {key: value for key, value in row.items() if value and key not in MANIFEST_COLUMNS}
    emotion = standard_emotion(row.get("emotion", ""))
    if emotion is None:
        notes.append(f"emotion {row['emotion']} is not one of ours and kept in info only")
        info["emotion"] = row["emotion"]
    clip_id = row.get("clip_id") or row.get("id") or _default_id(source, path)
    speaker = row.get("speaker", "")
    split = standard_split(row["split"]) if row.get("split") else None
    if split is None:
        if row.get("split"):
            notes.append(f"split {row['split']} is not train, validation or test: chosen by hash")
        split = hashed_split(speaker if split_by == "speaker" and speaker else clip_id, validation_share)
    return SourceClip(
        clip_id=clip_id,
        path=path,
        split=split,
        speaker=speaker,
        labels={"emotion": emotion or "", "text": row.get("text", "")},
        info=info,
        start_sec=start_sec,
        end_sec=end_sec,
        refused=refused,
        note="; ".join(notes),
    )


def _default_id(source: Path, path: Path) -> str:
    path, source = (Path(os.path.abspath(each)) for each in (path, source))
    inside = path.relative_to(source) if path.is_relative_to(source) else Path(path.name)
    return readable(inside.with_suffix("").as_posix())


def _part(row: dict[str, str]) -> tuple[float, float | None]:
    """start_sec and end_sec of a row. Raises ValueError if they are no times."""
    try:
        start = float(row.get("start_sec") or 0)
        end = float(row["end_sec"]) if row.get("end_sec") else None
    except ValueError:
        raise ValueError(f"start_sec {row.get('start_sec')} or end_sec {row.get('end_sec')} is not a number") from None
    if not 0 <= start < (end if end is not None else float("inf")):
        raise ValueError(f"start_sec {start} to end_sec {end} is not a part of a file")
    return start, end


LAYOUT = """\
Every sound and video file below --source becomes a clip, or, with --manifest, every row of a CSV file:

  path,speaker,text,emotion,split,start_sec,end_sec
  anna/01.mp4,anna,hello there,happy,train,,
  talk.mp4,ben,,,,12.4,17.0

Only `path` is needed: relative to --source, to the CSV's own folder or to the folder above it. `clip_id` may name the
clip. start_sec and end_sec cut a part out of a file. Any other column is kept with the clip. Rows without a split are
train or validation by --validation-share."""

CORPUS = Corpus(
    name="folder",
    layout=LAYOUT,
    arguments=(
        SOURCE,
        Argument("manifest", dict(type=Path, metavar="CSV", help="which files, with which labels (see above)")),
        Argument(
            "split_by",
            dict(choices=("clip", "speaker"), default="clip", help="what is held out whole (default: clip)"),
        ),
        VALIDATION_SHARE,
    ),
    read=read,
    labels={"emotion": "class", "text": "text"},
    prepared_name=lambda source, **_: readable(source.resolve().name),
)
