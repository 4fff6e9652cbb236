"""The text files of LRS2 and LRS3: what is said in a clip, and when each word; and cutting long clips at pauses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.timed import Word, are_of, spoken
from mmpretrain.records import FRAME_RATE_HZ

LONG_SEC = 15.0  # clips whose last word ends before this stay whole
PAUSE_SEC = 0.4
_SOUND_TAG = re.compile(r"\{[^}]*\}")


class Piece(NamedTuple):
    """Part of a clip: its words, and its times (end_sec None: to the clip's end)."""

    words: tuple[Word, ...]
    start_sec: float
    end_sec: float | None


class Transcript(NamedTuple):
    """text: in small letters. words: with their times, where the file has them. note: what was odd."""

    text: str
    words: tuple[Word, ...]
    note: str = ""


def transcript_of(video: Path) -> Transcript:
    """That of the text file beside a video."""
    file = video.with_suffix(".txt")
    if not file.is_file():
        return Transcript("", (), "no text file")
    return parse_text(file.read_text(encoding="utf-8", errors="replace"))


def parse_text(content: str) -> Transcript:
    """The transcript without sound tags such as {LG}, and the words of its table, found by the line `WORD`."""
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
        if word.text:
            words.append(word)
    return Transcript(_clean(text), tuple(words))


def _clean(text: str) -> str:
    return " ".join(_SOUND_TAG.sub(" ", text).lower().split())


def cut_at_pauses(words: Sequence[Word]) -> list[Piece]:
    """Cuts a clip of 15 s or more in the middle of each pause over 0.4 s, on whole frames; shorter ones stay whole."""
    pieces, first, start = [], 0, 0.0
    if words and words[-1].end_sec >= LONG_SEC:
        for index, (word, following) in enumerate(itertools.pairwise(words)):
            if following.start_sec - word.end_sec > PAUSE_SEC:
                middle = int((word.end_sec + following.start_sec) / 2 * FRAME_RATE_HZ) / FRAME_RATE_HZ
                pieces.append(Piece(tuple(words[first : index + 1]), start, middle))
                first, start = index + 1, middle
    return [*pieces, Piece(tuple(words[first:]), start, None)]


def pieces_of(transcript: Transcript, *, cut: bool) -> list[tuple[str, Piece]]:
    """(text, piece) of each piece of a clip: of one that is not to be cut, or is short, the whole."""
    pieces = cut_at_pauses(transcript.words) if cut else []
    if len(pieces) < 2:
        words = transcript.words if are_of(transcript.words, transcript.text) else ()
        return [(transcript.text, Piece(words, 0.0, None))]
    return [(spoken(piece.words), piece) for piece in pieces]
