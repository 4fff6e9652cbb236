"""GRID: sentences of six words, spelled by the file names, with the time of each word. All clips are `train` or
`validation`; the corpus has no splits of its own."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from data_prep.corpus import SOURCE, VALIDATION_SHARE, Corpus
from data_prep.labels import columns
from data_prep.sources import Official, SourceClip, best_file, hashed_split, media_files
from data_prep.tables import read_table, read_text
from data_prep.timed import WORDS_TRACK, Word, are_in_order, are_of
from mmpretrain.listing import find_files, readable, suffix_of
from mmpretrain.records import FACE_TRACKS

_TICKS_PER_SEC = 25_000
_PAUSES = ("sil", "sp")
_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},  # there is no w
    {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven",
     "8": "eight", "9": "nine"},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)  # fmt: skip
_DAMAGED = {"s1/pbio7a", "s1/prii9a", "s1/sbbh4p"}
_SPEAKER = re.compile(r"s(\d{1,2})(?:\D.*)?", re.IGNORECASE)  # s1, s1.mpg_vcd, s1_processed


def read(source: Path, *, validation_share: float) -> list[SourceClip]:
    """Every sentence below `source`. Of one that is there as picture and as sound alone, the picture is used.

    The speaker is the nearest folder above called s1 to s34. About `validation_share` of the sentences are
    `validation`. Raises ValueError for an alignment that cannot be read.
    """
    files = media_files(source)
    texts = find_files(source, {".align", ".csv"}).files  # as recordings are: no hidden ones, links followed
    tables = {path.parent: _table(path) for path in texts if path.name == "alignments.csv"}
    aligned = {(_speaker(path.parent, source), path.stem): path for path in texts if suffix_of(path) == ".align"}
    clips, taken = [], defaultdict(list)
    for path in files:
        taken[_speaker(path.parent, source), path.stem].append(path)
    for (speaker, name), path in aligned.items():  # of a recording that is not here
        taken.setdefault((speaker, name), [path.parent.parent / f"{name}.mpg"])
    for folder, table in tables.items():
        for name in table:
            taken.setdefault((_speaker(folder, source), name), [folder / f"{name}.mpg"])
    for (speaker, name), paths in sorted(taken.items()):
        path = best_file(paths)
        words = (
            _words(aligned[speaker, name]) if (speaker, name) in aligned else tables.get(path.parent, {}).get(name, ())
        )
        clips.append(_clip(path, speaker, name, words, validation_share))
    return clips


def _clip(path: Path, speaker: str, name: str, words: tuple[Word, ...], validation_share: float) -> SourceClip:
    clip_id = f"{speaker}/{readable(name)}" if speaker else readable(name)
    spelled = spelling(name)
    if not spelled:
        return SourceClip(clip_id, path, refused="not a name of GRID (six letters such as bbaf2n, each for a word)")
    note = "" if words else "no times of words"
    if words and not are_of(words, spelled):
        note = "the words that are timed are not those that the name spells, which are left out with their times"
        words = ()
    elif not are_in_order(words):
        note, words = "the times of words are not in order, and left out", ()
    return SourceClip(
        clip_id,
        path,
        split=hashed_split(clip_id, validation_share),
        speaker=f"grid-{speaker}" if speaker else "",
        labels={"text": spelled},
        refused="known to be damaged in every copy" if clip_id in _DAMAGED else "",
        broken=clip_id in _DAMAGED,
        note=note,
        words=words,
        official=Official("sentences", clip_id) if speaker else None,
    )


def spelling(name: str) -> str:
    """The six words of a name, "" for one that spells none."""
    words = [table.get(letter) for table, letter in zip(_WORDS, name.lower(), strict=False)]
    return " ".join(words) if len(name) == len(_WORDS) and all(words) else ""


def _speaker(folder: Path, source: Path) -> str:
    """s1 to s34 of the nearest folder that is called so, the source itself included."""
    inside = [*reversed(folder.relative_to(source).parts), source.resolve().name]
    return next((f"s{int(match[1])}" for part in inside if (match := _SPEAKER.fullmatch(part))), "")


def _words(path: Path) -> tuple[Word, ...]:
    """Of a file with a line `start end word` for each, in 1/25,000 s."""
    words = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            start, end, text = int(fields[0]), int(fields[1]), fields[2]
        except (IndexError, ValueError):
            raise ValueError(f"{path}, line {number}: {line!r} is not `start end word`; get the file anew") from None
        if text not in _PAUSES:
            words.append(Word(text, start / _TICKS_PER_SEC, end / _TICKS_PER_SEC))
    return tuple(words)


def _table(path: Path) -> dict[str, tuple[Word, ...]]:
    """By clip the words of a table of all, in seconds."""
    words = defaultdict(list)
    for row in read_table(path, ["clip", "start_s", "end_s", "word"]):
        if row["word"] not in _PAUSES:
            words[row["clip"]].append(Word(row["word"], row.number("start_s"), row.number("end_s")))
    return {clip: tuple(of_clip) for clip, of_clip in words.items()}


LAYOUT = """\
GRID: s1/bbaf2n.mpg (or other formats; s1 to s34 at any depth), align/bbaf2n.align below the speaker's folder, or one
alignments.csv (clip,start_s,end_s,word) beside the clips. The words are spelled by the name; with their times every
clip has the track `words`. Damaged files of speaker 1 are left out."""

CORPUS = Corpus(
    name="grid",
    layout=LAYOUT,
    terms="CC BY 4.0",
    arguments=(SOURCE, VALIDATION_SHARE),
    read=read,
    labels=columns("text"),
    tracks={**FACE_TRACKS, **WORDS_TRACK},
    official={"sentences": 33_000},
)
