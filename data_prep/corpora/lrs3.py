"""LRS3-TED in its release layout: `pretrain`, `trainval` and `test`, each `<video id>/<number>.mp4` with a text file.

Long pretrain clips are cut at pauses by their word times, as the AV-HuBERT recipe does.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.corpus import SOURCE, VALIDATION_SHARE, Corpus
from data_prep.sources import SourceClip, hashed_split, media_files
from mmpretrain.listing import readable
from mmpretrain.records import FRAME_RATE_HZ

SETS = ("pretrain", "trainval", "test")
LONG_SEC = 15.0  # pretrain clips whose last word ends before this stay whole
PAUSE_SEC = 0.4
_SOUND_TAG = re.compile(r"\{[^}]*\}")


class Word(NamedTuple):
    text: str
    start_sec: float
    end_sec: float


class Piece(NamedTuple):
    """Part of a clip: its words, and its times (end_sec None: to the clip's end)."""

    text: str
    start_sec: float
    end_sec: float | None


def read(source: Path, *, validation_share: float) -> list[SourceClip]:
    """The clips of a release, or of those of its three sets that are there.

    About `validation_share` of pretrain and trainval is `validation`, by hash of the uncut clip. The speaker is the
    talk.
    Raises FileNotFoundError if none of the sets is there.
    """
    if not any((source / name).is_dir() for name in SETS):
        raise FileNotFoundError(
            f"--source {source} has none of the folders {', '.join(SETS)}; give the release's own folder"
        )
    return [
        clip
        for name in SETS
        if (source / name).is_dir()
        for path in media_files(source / name)
        if path.parent.parent == source / name and path.suffix == ".mp4"
        for clip in _clips(name, path, validation_share)
    ]


def _clips(name: str, path: Path, validation_share: float) -> Iterator[SourceClip]:
    talk = readable(path.parent.name)
    clip_id = f"{name}/{talk}/{readable(path.stem)}"
    text_file = path.with_suffix(".txt")
    text, words, note = "", [], ""
    if text_file.is_file():
        text, words = parse_text(text_file.read_text(encoding="utf-8", errors="replace"))
    else:
        note = "no text file"
    pieces = cut_at_pauses(words) if name == "pretrain" else []
    if len(pieces) < 2:
        pieces = [Piece(text, 0.0, None)]
    for k, piece in enumerate(pieces):
        yield SourceClip(
            clip_id=clip_id if len(pieces) == 1 else f"{clip_id}_{k}",
            path=path,
            split="test" if name == "test" else hashed_split(clip_id, validation_share),
            speaker=f"lrs3-{talk}",
            labels={"text": piece.text},
            info={"set": name},
            start_sec=piece.start_sec,
            end_sec=piece.end_sec,
            note=note,
        )


def parse_text(content: str) -> tuple[str, list[Word]]:
    """The transcript in lower case without sound tags such as {LG}, and the word times where the file has them."""
    lines = content.splitlines()
    text = next((line.partition(":")[2] for line in lines if line.startswith("Text:")), "")
    table = next((row + 1 for row, line in enumerate(lines) if line.startswith("WORD")), len(lines))
    words = []
    for line in lines[table:]:
        fields = line.split()
        if len(fields) < 3:
            continue
        try:
            word = Word(_clean(fields[0]), float(fields[1]), float(fields[2]))
        except ValueError:
            continue
        words.append(word)
    return _clean(text), words


def _clean(text: str) -> str:
    return " ".join(_SOUND_TAG.sub(" ", text).lower().split())


def cut_at_pauses(words: list[Word]) -> list[Piece]:
    """Cuts a clip of 15 s or more in the middle of each pause over 0.4 s, on whole frames; shorter ones stay whole."""
    if not words:
        return []
    pieces, first, start = [], 0, 0.0
    if words[-1].end_sec >= LONG_SEC:
        for index, (word, following) in enumerate(itertools.pairwise(words)):
            if following.start_sec - word.end_sec > PAUSE_SEC:
                middle = int((word.end_sec + following.start_sec) / 2 * FRAME_RATE_HZ) / FRAME_RATE_HZ
                pieces.append(_piece(words[first : index + 1], start, middle))
                first, start = index + 1, middle
    return [*pieces, _piece(words[first:], start, None)]


def _piece(words: list[Word], start_sec: float, end_sec: float | None) -> Piece:
    return Piece(" ".join(word.text for word in words if word.text), start_sec, end_sec)


LAYOUT = """\
LRS3-TED as released: pretrain/, trainval/ and test/ (any of them), each <video id>/<number>.mp4 with .txt beside it.
Long pretrain clips are cut at pauses; test is the test split."""

CORPUS = Corpus(
    name="lrs3",
    layout=LAYOUT,
    arguments=(SOURCE, VALIDATION_SHARE),
    read=read,
    labels={"text": "text"},
    official={"pretrain": 118_516, "trainval": 31_982, "test": 1_321},
)
