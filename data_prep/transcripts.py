"""The text files of LRS2 and LRS3: what is said in a clip, and when each word; and cutting long clips at pauses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.sources import media_files
from data_prep.tables import read_text
from data_prep.timed import Word, are_in_order, are_of, spoken
from mmpretrain.listing import suffix_of
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


def recordings(folder: Path) -> list[Path]:
    """The videos `<programme>/<number>.mp4` of a folder, those among them of which only the text is here."""
    at = {path for path in media_files(folder) if path.parent.parent == folder and suffix_of(path) == ".mp4"}
    texts = {path.with_suffix(".mp4") for path in folder.glob("*/*.txt") if not path.name.startswith(".")}
    there = {path.with_suffix(".mp4") for path in at}
    return sorted({*at, *(texts - there)})


def is_number(name: str) -> bool:
    """Whether a recording can be called so."""
    return re.fullmatch(r"\d{5}", name) is not None


def transcript_of(video: Path) -> Transcript:
    """That of the text file beside a video."""
    file = video.with_suffix(".txt")
    if not file.is_file():
        return Transcript("", (), "no text file")
    try:
        return parse_text(read_text(file))
    except (ValueError, OSError) as error:
        return Transcript("", (), f"the text file cannot be read: {error}")


def parse_text(content: str) -> Transcript:
    """The transcript without sound tags such as {LG}, and the words of its table, found by the line `WORD`.

    Without the words where a line of the table says none, or their times are not in order.
    """
    lines = content.splitlines()
    said = next((line.partition(":")[2] for line in lines if line.startswith("Text:")), None)
    table = next((row + 1 for row, line in enumerate(lines) if line.startswith("WORD")), len(lines))
    text, note = _clean(said or ""), "" if said is not None else "the text file has no line `Text:`"
    try:
        timed = [_word(line) for line in lines[table:] if line.strip()]
    except (ValueError, IndexError):
        return Transcript(text, (), note or "the table of words cannot be read, and their times are left out")
    words = tuple(word for word in timed if word.text)
    if not are_in_order(words):
        return Transcript(text, (), note or "the times of words are not in order, and left out")
    if words and not are_of(words, text):
        note = note or "the words that are timed are not those of the text"
    return Transcript(text, words, note)


def _word(line: str) -> Word:
    text, start, end, *_ = line.split()
    return Word(_clean(text), float(start), float(end))


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
