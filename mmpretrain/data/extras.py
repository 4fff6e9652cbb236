"""What is heard of clips beside the encoder's modalities: texts, and what is known of every frame, such as hands.

Dims: L rows, D numbers a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mmpretrain import records
from mmpretrain.data.clips import ClipTable
from mmpretrain.records import Clip


class Extra(Protocol):
    """dim: D. of_frames: whether the rows are those of the frames, one each."""

    dim: int
    of_frames: bool

    def most(self, num_frames: int) -> int:
        """How many rows there may be of a clip in a batch of so many frames."""

    def rows(self, clip: Clip, frames: range) -> np.ndarray:
        """float32 [L, D] of these frames of a clip; a row of zeros is none."""


class ClipFeatures:
    """Of each clip by its id up to `most` rows, on no grid of time, such as tokens of a text.

    starts: [N + 1], where in `rows` each clip's begin.
    """

    of_frames = False

    def __init__(self, clip_ids: Sequence[str], starts: np.ndarray, rows: np.ndarray, most: int):
        self._number = {clip_id: number for number, clip_id in enumerate(clip_ids)}
        self._starts, self._rows, self._most, self.dim = starts, rows, most, rows.shape[1]

    def most(self, num_frames: int) -> int:
        del num_frames
        return self._most

    def rows(self, clip: Clip, frames: range) -> np.ndarray:
        """Those of the whole clip, whatever the frames; of one that is not known, [0, D]."""
        del frames
        number = self._number.get(clip.clip_id)
        if number is None:
            return np.zeros((0, self.dim), np.float32)
        rows = self._rows[self._starts[number] : self._starts[number + 1]]
        return rows[: self._most].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Track:
    """A track of the corpora, such as `hands`, of which every frame has `dim` numbers."""

    name: str
    dim: int
    of_frames = True

    def most(self, num_frames: int) -> int:
        return num_frames

    def rows(self, clip: Clip, frames: range) -> np.ndarray:
        """Of a clip without the track, [0, D]; zeros where a number is not known."""
        track = clip.tracks.get(self.name)
        if track is None:
            return np.zeros((0, self.dim), np.float32)
        rows = track[frames.start : frames.stop].astype(np.float32)
        return np.where(np.isfinite(rows).all(1, keepdims=True), rows, 0)


def track_of(table: ClipTable, name: str) -> Track:
    """Raises ValueError where no corpus of the table has that track, or it is not so many numbers a frame."""
    known = {str(source.corpus_dir): records.read_schema(source.corpus_dir).tracks for source in table.sources}
    specs = {folder: tracks[name] for folder, tracks in known.items() if name in tracks}
    if not specs or not table.has(name).any():
        there = ", ".join(sorted({other for tracks in known.values() for other in tracks if table.has(other).any()}))
        hint = " (`python -m data_prep --hand-landmarker PATH` finds hands)" if name == "hands" else ""
        raise ValueError(
            f"finetune.tracks: no clip of {table.folders()} has a track {name!r}; there are {there or 'none'}; prepare "
            f"the clips with it{hint}, or leave it out"
        )
    for folder, spec in specs.items():
        if len(spec.shape) != 1 or np.dtype(spec.dtype).kind != "f" or spec.shape != next(iter(specs.values())).shape:
            raise ValueError(
                f"finetune.tracks: the track {name!r} of {folder} is {spec.dtype} {list(spec.shape)} a frame; one that "
                "is heard is of so many numbers, float, as many in all corpora"
            )
    return Track(name, next(iter(specs.values())).shape[0])
