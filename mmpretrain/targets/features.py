"""What clusters are made of: MFCC, or a layer of an encoder. Features are handed on clip by clip, never stored.

Dims: T frames of one clip, D features, B clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from jax.sharding import Mesh

from mmpretrain.data.audio import mfcc39_of_frames
from mmpretrain.data.clips import ClipTable
from mmpretrain.targets.kmeans import assign

LABEL_FRAMES = 16_384  # at most so many frames are labelled at once (or one longer clip)


def mfcc_features(table: ClipTable, rows: Iterable[int], rows_per_frame: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """(row, float32 [T * rows_per_frame, 39]) of some clips."""
    for row in rows:
        clip = table.load(row)
        yield int(row), mfcc39_of_frames(clip.audio, clip.num_frames, rows_per_frame)


def hidden_features(
    features_BTD: np.ndarray, clip_B: np.ndarray, valid_BT: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """(row, float32 [T, D]) of each clip of a batch of whole clips."""
    for row, valid_T, features_TD in zip(clip_B, valid_BT, features_BTD, strict=True):
        if row >= 0:
            yield int(row), np.asarray(features_TD, np.float32)[valid_T]


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
