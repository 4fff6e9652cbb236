"""What a corpus says of stretches of time, words and curves of values, and both on the 25 Hz grid.

Times are seconds from the beginning of the clip's file, so that they stay right when a part of it is cut out.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmpretrain.records import FRAME_RATE_HZ, TrackSpec

NO_WORD = -1  # of the track `words`, where nothing is spoken
WORDS_TRACK = {"words": TrackSpec((), "int32")}


class Word(NamedTuple):
    """`text` is spoken from start_sec to end_sec."""

    text: str
    start_sec: float
    end_sec: float


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """One value at each of some times. times_sec, values: float [N], times ascending; NaN where nobody said.

    hold: between two values the nearer one holds, as of yes and no; else they are joined by a line.
    """

    times_sec: np.ndarray
    values: np.ndarray
    hold: bool = False

    def track(self, start_sec: float, num_frames: int) -> np.ndarray:
        """float32 [T]: at the middle of each frame of the clip that begins at start_sec, between the two values around.

        NaN before the first and behind the last value by more than half of the usual step, and beside a NaN.
        """
        at_T = start_sec + (np.arange(num_frames) + 0.5) / FRAME_RATE_HZ
        if not len(self.times_sec):
            return np.full(num_frames, np.nan, np.float32)
        reach = (np.median(np.diff(self.times_sec)) if len(self.times_sec) > 1 else 1 / FRAME_RATE_HZ) / 2
        if self.hold:
            middles = (self.times_sec[1:] + self.times_sec[:-1]) / 2
            between_T = self.values[np.searchsorted(middles, at_T, side="right")]
        else:
            between_T = np.interp(at_T, self.times_sec, self.values)
        known_T = (at_T >= self.times_sec[0] - reach) & (at_T <= self.times_sec[-1] + reach)
        return np.where(known_T, between_T, np.nan).astype(np.float32)


def words_track(words: Sequence[Word], start_sec: float, num_frames: int) -> np.ndarray:
    """int32 [T]: which word is spoken at the middle of each frame, as its position in `words`, else `NO_WORD`.

    The clip begins at start_sec.
    """
    track = np.full(num_frames, NO_WORD, np.int32)
    at_T = start_sec + (np.arange(num_frames) + 0.5) / FRAME_RATE_HZ
    for position, word in enumerate(words):
        track[(word.start_sec <= at_T) & (at_T < word.end_sec)] = position
    return track


def words_within(words: Sequence[Word], start_sec: float, end_sec: float | None) -> tuple[Word, ...]:
    """The words whose middle is in a part of the file."""
    return tuple(
        word
        for word in words
        if start_sec <= (middle := (word.start_sec + word.end_sec) / 2) and (end_sec is None or middle < end_sec)
    )


def are_of(words: Sequence[Word], text: str) -> bool:
    """Whether the words are those of the text, one by one, so that a position among them is one in `text.split()`."""
    return [_letters(word.text) for word in words] == [_letters(word) for word in text.split()]


def _letters(word: str) -> str:
    return "".join(char for char in word.casefold() if char.isalnum())


def are_in_order(words: Sequence[Word]) -> bool:
    """Whether each word ends after it begins, and none begins before the one before it, nor before the beginning."""
    starts = [0.0, *(word.start_sec for word in words)]
    ordered = all(one <= following for one, following in itertools.pairwise(starts))  # no NaN either
    return ordered and all(word.start_sec <= word.end_sec < math.inf for word in words)


def spoken(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def tracks_of(
    words: Sequence[Word], curves: Mapping[str, Curve], start_sec: float, num_frames: int
) -> dict[str, np.ndarray]:
    """The tracks [T] of a clip that begins at start_sec."""
    tracks = {name: curve.track(start_sec, num_frames) for name, curve in curves.items()}
    return tracks | ({"words": words_track(words, start_sec, num_frames)} if words else {})
