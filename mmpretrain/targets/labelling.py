"""The features that are clustered, of a clip itself or of a layer of an encoder. They pass clip by clip, never stored.

Dims: T frames of one clip, D features, B clips.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mmpretrain.data.clips import ClipTable
from mmpretrain.data.pipeline import iterate
from mmpretrain.parallel.flight import one_behind
from mmpretrain.parallel.mesh import replicated
from mmpretrain.parallel.stopping import check_stop
from mmpretrain.targets.centres import ClipSums
from mmpretrain.targets.clip_features import CentreOf, ClipFeatures, FeaturesOf, Relative, SumsOf
from mmpretrain.targets.kmeans import begin_assign
from mmpretrain.targets.progress import Labelled

FEATURE_CLIPS = 64  # between two looks whether the run is to stop
LABEL_CLIPS = 256  # of each process, between two looks,
LABEL_FRAMES = 16_384  # of which at most so many frames are labelled at once (or one longer clip)


def clip_features(
    features: ClipFeatures, table: ClipTable, rows: Sequence[int], *, targets_per_frame: int = 1, num_workers: int = 0,
    centre_of: CentreOf | None = None,
) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
    """(row, float32 [T * targets_per_frame, D]) of some clips, in order; `num_workers` processes work ahead.

    Of a clip that cannot be read [0, D]. targets_per_frame: one of the features' rates. centre_of: None: they are
    relative to what they usually are. Raises ValueError for a clip that lacks what the features need, and Stopped
    between two clips if the run was asked to stop: all processes ask for equally many.
    """
    made = _features_and_units(features, table, rows, targets_per_frame, num_workers, centre_of)
    for i, (row, (features_TD, _)) in enumerate(made):
        if i % FEATURE_CLIPS == 0:
            check_stop()
        yield row, features_TD


def label_clips(
    features: ClipFeatures,
    table: ClipTable,
    wanted: np.ndarray,
    centroids_KD: np.ndarray,
    *,
    mesh: Mesh,
    share: tuple[int, int] = (0, 1),
    targets_per_frame: int = 1,
    num_workers: int = 0,
    centre_of: CentreOf | None = None,
) -> Iterator[Labelled]:
    """The cluster ids of features that clips have by themselves, and the true units where they are known.

    wanted: bool [N], the clips to be among them. mesh: of this process's own devices. share: which of how many equal
    parts is asked for; all processes come here together, each for its own. Which clips are labelled together depends on
    the table alone, hence so does every bit. While the devices label some, the features of the next are made. A clip
    that cannot be read has no ids.

    Raises ValueError for features that are not finite or of other dims than the codebook, Stopped between two groups.
    """
    chunks = [rows[share[0] :: share[1]] for rows in _chunks(wanted, LABEL_CLIPS * share[1])]
    rows = np.concatenate([np.zeros(0, np.int64), *chunks])
    made = _features_and_units(features, table, rows, targets_per_frame, num_workers, centre_of)
    centroids = jax.device_put(centroids_KD, replicated(mesh))

    def begun() -> Iterator[tuple[Group, Callable[[], np.ndarray]]]:
        for chunk in chunks:
            check_stop()
            for group in _groups(itertools.islice(made, len(chunk))):
                frames_ND = np.concatenate(group.features)
                if frames_ND.shape[1] != centroids_KD.shape[1]:
                    raise ValueError(
                        f"the codebook has {centroids_KD.shape[1]} dims but the features have {frames_ND.shape[1]}: it "
                        "was fitted on others; remove the folder of these targets to make them again"
                    )
                yield group, begin_assign(frames_ND, centroids, mesh=mesh)

    for group, ids in one_behind(begun()):
        lengths = np.array(list(map(len, group.features)), np.int64)
        units = None
        if any(known is not None for known in group.units):
            units = np.full(lengths.sum(), -1, np.int32)
            for start, known in zip(np.cumsum(lengths) - lengths, group.units, strict=True):
                if known is not None:
                    units[start : start + len(known) * targets_per_frame] = np.repeat(known, targets_per_frame)
        yield Labelled(np.array(group.rows, np.int64), lengths, ids(), units)


class Group(NamedTuple):
    """Clips that are labelled at once: their rows, features [T, D] each, and true units [T] or None."""

    rows: list[int]
    features: list[np.ndarray]
    units: list[np.ndarray | None]


def clip_sums(
    relative: Relative, table: ClipTable, wanted: np.ndarray, *, share: tuple[int, int] = (0, 1), num_workers: int = 0
) -> Iterator[tuple[int, ClipSums]]:
    """(row, what the clip adds to its speaker's centre) of this process's share of the wanted clips.

    Clips that cannot be read are left out.
    Which share is asked for: as in `label_clips`. Raises ValueError for a clip that lacks what the features need,
    Stopped between two groups of clips.
    """
    rows, size = np.flatnonzero(wanted), LABEL_CLIPS * share[1]
    chunks = [rows[start : start + size][share[0] :: share[1]] for start in range(0, len(rows), size)]
    rows = rows[share[0] :: share[1]]

    made = iterate(
        rows, SumsOf(relative, table), first_step=0, num_steps=len(rows), num_workers=num_workers,
        unreadable=table.unreadable,
    )  # fmt: skip
    for chunk in chunks:
        check_stop()
        of_chunk = itertools.islice(made, len(chunk))
        yield from ((int(row), ClipSums(*of_clip)) for row, of_clip in of_chunk if of_clip is not None)


def _features_and_units(
    features: ClipFeatures, table: ClipTable, rows: Sequence[int], targets_per_frame: int, num_workers: int,
    centre_of: CentreOf | None,
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray | None]]]:  # fmt: skip
    assert targets_per_frame in features.rates, f"{features.title} has {features.rates} rows a frame"
    load = FeaturesOf(features, table, targets_per_frame, centre_of)
    made = iterate(
        rows, load, first_step=0, num_steps=len(rows), num_workers=num_workers, unreadable=table.unreadable
    )  # fmt: skip
    return ((int(row), of_clip) for row, of_clip in made)


def _chunks(wanted: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The rows of a table, `size` at a time, without those times of which none is wanted."""
    for start in range(0, len(wanted), size):
        if wanted[start : start + size].any():
            yield np.arange(start, min(start + size, len(wanted)))


def _groups(features: Iterable[tuple[int, tuple[np.ndarray, np.ndarray | None]]]) -> Iterator[Group]:
    """Of at most `LABEL_FRAMES` frames, or one longer clip."""
    group, size = Group([], [], []), 0
    for row, (features_TD, units_T) in features:
        if group.rows and size + len(features_TD) > LABEL_FRAMES:
            yield group
            group, size = Group([], [], []), 0
        group.rows.append(row)
        group.features.append(features_TD)
        group.units.append(units_T)
        size += len(features_TD)
    if group.rows:
        yield group
