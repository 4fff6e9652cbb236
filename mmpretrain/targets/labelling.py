"""The features that are clustered, of a clip itself or of a layer of an encoder. They pass clip by clip, never stored.

Dims: T frames of one clip, D features, B clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from mmpretrain.data.clips import ClipTable
from mmpretrain.data.pipeline import iterate
from mmpretrain.features.face import APPEARANCE_DIM, GEOMETRY_DIM, appearance_features, geometry_features
from mmpretrain.features.filterbank import FBANK_DIM, fbank_of_frames
from mmpretrain.features.mfcc import MFCC_DIM, mfcc39_of_frames
from mmpretrain.features.prosody import PROSODY_DIM, prosody_features
from mmpretrain.records import NUM_BLENDSHAPES, Clip
from mmpretrain.targets.kmeans import assign

NO_BLENDSHAPES = np.zeros((0, NUM_BLENDSHAPES), np.float16)
LABEL_FRAMES = 16_384  # at most so many frames are labelled at once (or one longer clip)


class ClipFeatures(NamedTuple):
    """Features that a clip has by itself. needs: "audio", "video" or a track, without which it has none.

    of_clip: takes a clip to float32 [T, dim]; of MFCC alone also, with a second argument of 4, to [4 T, dim].
    """

    title: str
    dim: int
    needs: str
    of_clip: Callable[..., np.ndarray]


def _mfcc(clip: Clip, targets_per_frame: int = 1) -> np.ndarray:
    return mfcc39_of_frames(clip.audio, clip.num_frames, targets_per_frame)


def _fbank(clip: Clip) -> np.ndarray:
    return fbank_of_frames(clip.audio, clip.num_frames)


def _prosody(clip: Clip) -> np.ndarray:
    return prosody_features(clip.audio, clip.num_frames)


def _appearance(clip: Clip) -> np.ndarray:
    return appearance_features(clip.face)


def _geometry(clip: Clip) -> np.ndarray:
    return geometry_features(clip.tracks.get("blendshapes", NO_BLENDSHAPES))


# By what a recipe calls them; "hidden", a layer of an encoder, needs more than the clip.
CLIP_FEATURES = {
    "mfcc": ClipFeatures("MFCC", MFCC_DIM, "audio", _mfcc),
    "fbank": ClipFeatures("log filterbank", FBANK_DIM, "audio", _fbank),
    "prosody": ClipFeatures("prosody", PROSODY_DIM, "audio", _prosody),
    "face_appearance": ClipFeatures("face appearance", APPEARANCE_DIM, "video", _appearance),
    "face_geometry": ClipFeatures("face geometry", GEOMETRY_DIM, "blendshapes", _geometry),
}


def clip_features(
    kind: str, table: ClipTable, rows: Sequence[int], *, targets_per_frame: int = 1, num_workers: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """(row, float32 [T * targets_per_frame, D]) of some clips, in order; `num_workers` threads work ahead.

    targets_per_frame: 1, or for MFCC 4. Raises ValueError for a clip that lacks what the features need.
    """
    assert targets_per_frame == 1 or kind == "mfcc", f"{kind} has one row a frame"
    rate = (targets_per_frame,) if kind == "mfcc" else ()

    def load(row: int) -> np.ndarray:
        return CLIP_FEATURES[kind].of_clip(table.load(row), *rate)

    made = iterate(rows, load, first_step=0, num_steps=len(rows), num_workers=num_workers)
    return ((int(row), features_TD) for row, features_TD in made)


def label(
    features: Iterable[tuple[int, np.ndarray]], centroids_KD: np.ndarray, mesh: Mesh | None = None
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Groups of clips, as their rows and the int32 [T] cluster ids of each. mesh None: the first device.

    Holds the features of one group at a time. Raises ValueError for features that are not finite or that have other
    dims than the codebook.
    """
    rows, group, size = [], [], 0
    for row, features_TD in features:
        if rows and size + len(features_TD) > LABEL_FRAMES:
            yield rows, _label_group(group, centroids_KD, mesh)
            rows, group, size = [], [], 0
        rows.append(row)
        group.append(features_TD)
        size += len(features_TD)
    if rows:
        yield rows, _label_group(group, centroids_KD, mesh)


def _label_group(group: list[np.ndarray], centroids_KD: np.ndarray, mesh: Mesh | None) -> list[np.ndarray]:
    frames_ND = np.concatenate(group)
    if frames_ND.shape[1] != centroids_KD.shape[1]:
        raise ValueError(
            f"the codebook has {centroids_KD.shape[1]} dims but the features have {frames_ND.shape[1]}: it was fitted "
            f"on others; remove the codebook.npz of these targets to fit it again"
        )
    ids_N = assign(frames_ND, centroids_KD, mesh=mesh)
    return np.split(ids_N, np.cumsum([len(clip) for clip in group])[:-1])
