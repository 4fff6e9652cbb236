"""The features that a clip has by itself, and what they are relative to. No JAX: worker processes make them.

Dims: T frames of one clip, C values of a centre.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mmpretrain.data.clips import ClipTable
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.features.face import (
    APPEARANCE_DIM,
    GEOMETRY_DIM,
    appearance_features,
    appearance_sums,
    geometry_features,
    geometry_sums,
)
from mmpretrain.features.filterbank import FBANK_DIM, fbank_of_frames
from mmpretrain.features.mfcc import CEPSTRA_DIM, MFCC_DIM, cepstra_of_frames, mfcc39_of_frames
from mmpretrain.features.prosody import PROSODY_DIM, TYPICAL, prosody_features, prosody_sums
from mmpretrain.records import NUM_BLENDSHAPES, Clip

NO_BLENDSHAPES = np.zeros((0, NUM_BLENDSHAPES), np.float16)


@dataclasses.dataclass(frozen=True)
class CentreOf:
    """What the features of the clip of each row are relative to. rows: int64 [N], of `centres_SC`; -1: to the clip."""

    rows: np.ndarray
    centres_SC: np.ndarray

    @classmethod
    def same(cls, centre_C: np.ndarray | None, num_clips: int) -> CentreOf:
        """For all clips; None: each is relative to itself."""
        if centre_C is None:
            return cls(np.full(num_clips, -1), np.zeros((0, 0), np.float32))
        return cls(np.zeros(num_clips, np.int64), centre_C[None])

    def __call__(self, row: int) -> np.ndarray | None:
        return None if self.rows[row] < 0 else self.centres_SC[self.rows[row]]


class Relative(NamedTuple):
    """How features can be relative to something. usual: to what they are unless a recipe says otherwise.

    typical: float32 [C], which stands for a speaker's centre where they are relative to "none". sums: what a clip adds
    to its speaker's centre.
    """

    usual: str
    typical: np.ndarray
    sums: Callable[[Clip], tuple[np.ndarray, np.ndarray]]


class ClipFeatures(NamedTuple):
    """Features that a clip has by itself. needs: "audio", "video" or a track, without which it has none.

    of_clip: takes a clip to float32 [T, dim]; of those that have several `rates` with a second argument, how many rows
    of a frame, to [rate T, dim]; of those that have `relative` with a second argument, the centre [C] or None.
    """

    title: str
    dim: int
    needs: str
    of_clip: Callable[..., np.ndarray]
    relative: Relative | None = None
    rates: tuple[int, ...] = (1,)


def _mfcc(clip: Clip, targets_per_frame: int = 1) -> np.ndarray:
    return mfcc39_of_frames(clip.audio, clip.num_frames, targets_per_frame)


def _cepstra(clip: Clip) -> np.ndarray:
    return cepstra_of_frames(clip.audio, clip.num_frames)


def _fbank(clip: Clip) -> np.ndarray:
    return fbank_of_frames(clip.audio, clip.num_frames)


def _prosody(clip: Clip, centre_C: np.ndarray | None = None) -> np.ndarray:
    return prosody_features(clip.audio, clip.num_frames, centre_C)


def _appearance(clip: Clip, centre_C: np.ndarray | None = None) -> np.ndarray:
    return appearance_features(clip.face, centre_C)


def _geometry(clip: Clip, centre_C: np.ndarray | float | None = 0.0) -> np.ndarray:
    return geometry_features(_blendshapes(clip), centre_C)


def _blendshapes(clip: Clip) -> np.ndarray:
    return clip.tracks.get("blendshapes", NO_BLENDSHAPES)


def _prosody_sums(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    return prosody_sums(clip.audio, clip.num_frames)


def _appearance_sums(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    return appearance_sums(clip.face)


def _geometry_sums(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    return geometry_sums(_blendshapes(clip))


_PROSODY = Relative("clip", TYPICAL, _prosody_sums)
_APPEARANCE = Relative("clip", np.zeros(APPEARANCE_DIM // 2, np.float32), _appearance_sums)
_GEOMETRY = Relative("none", np.zeros(GEOMETRY_DIM // 2, np.float32), _geometry_sums)

# By what a recipe calls them; "hidden", a layer of an encoder, is none that a clip has without one.
CLIP_FEATURES = {
    "mfcc": ClipFeatures("MFCC", MFCC_DIM, "audio", _mfcc, rates=(1, 4)),
    "cepstra": ClipFeatures("cepstra", CEPSTRA_DIM, "audio", _cepstra),
    "fbank": ClipFeatures("log filterbank", FBANK_DIM, "audio", _fbank),
    "prosody": ClipFeatures("prosody", PROSODY_DIM, "audio", _prosody, _PROSODY),
    "face_appearance": ClipFeatures("face appearance", APPEARANCE_DIM, "video", _appearance, _APPEARANCE),
    "face_geometry": ClipFeatures("face geometry", GEOMETRY_DIM, "blendshapes", _geometry, _GEOMETRY),
}


@dataclasses.dataclass(frozen=True)
class FeaturesOf:
    """Loads (features float32 [T * rate, D], true units [T] or None) of the clip of a row; of one that cannot be read
    [0, D]. rate: rows a frame. centre_of: None: features that cannot be relative to anything."""

    features: ClipFeatures
    table: ClipTable
    rate: int = 1
    centre_of: CentreOf | None = None

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray | None]:
        rate = (self.rate,) if len(self.features.rates) > 1 else ()
        given = rate if self.centre_of is None else (self.centre_of(row),)
        try:
            clip = self.table.open(row)
            return self.features.of_clip(clip, *given), clip.tracks.get("units")
        except UnreadableClipError as error:
            self.table.unreadable.add(error)
            return np.zeros((0, self.features.dim), np.float32), None


@dataclasses.dataclass(frozen=True)
class SumsOf:
    """Loads what the clip of a row adds to its speaker's centre; of one that cannot be read None."""

    relative: Relative
    table: ClipTable

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray] | None:
        try:
            return self.relative.sums(self.table.open(row))
        except UnreadableClipError as error:
            self.table.unreadable.add(error)
            return None
