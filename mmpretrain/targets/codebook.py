"""Fitting a codebook on a sample of the training clips, and keeping it for an interrupted run to go on with."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from mmpretrain.config import TargetsConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.files import DamagedError, check_seal, read_arrays, seal, whole_folder, write_arrays
from mmpretrain.observe.progress import Progress, log
from mmpretrain.targets.kmeans import Codebook, fit

CODEBOOK_FILE = "codebook.npz"


def fit_rows(train: ClipTable, share: float, max_frames: int) -> np.ndarray:
    """The rows of the clips that a codebook is fitted on: `share` of them, fewer if they have more than `max_frames`.

    Drawn by clip id: the order of the corpus does not matter, and a larger share holds the clips of a smaller one.
    """
    order = np.argsort(train.draws("codebook"), kind="stable")
    order = order[: max(1, round(share * len(train)))]
    fitting = np.cumsum(train.lengths[order]) <= max_frames
    return np.sort(order[: max(1, int(fitting.sum()))])


def fit_codebook(
    features: Iterable[tuple[int, np.ndarray]],
    lengths: np.ndarray,
    targets: TargetsConfig,
    *,
    key: jax.Array,
    mesh: Mesh,
    title: str,
) -> Codebook:
    """Fits the codebook that `targets` describes on clips of these lengths.

    features: (row, float32 [lengths[row], D], or [0, D] of a clip that cannot be read) of every clip, in any order, in
    every process. Raises ValueError for fewer features than clusters and for features that are not finite.
    """
    starts, frames_ND, read_N = np.cumsum(lengths) - lengths, None, np.ones(int(lengths.sum()), bool)
    for row, features_TD in features:
        if frames_ND is None:
            frames_ND = np.empty((len(read_N), features_TD.shape[1]), np.float32)
        of_clip = slice(starts[row], starts[row] + lengths[row])
        if len(features_TD):
            frames_ND[of_clip] = features_TD
        else:
            read_N[of_clip] = False
    if not read_N.all():
        frames_ND = frames_ND[read_N]
    log(f"{title}: fitting {targets.num_clusters} clusters on {frames_ND.shape[0]} x {frames_ND.shape[1]}")
    with Progress(f"{title}: fitting", unit="pass") as progress:
        return fit(
            frames_ND, targets.num_clusters, key=key, passes=targets.fit_passes, restarts=targets.fit_restarts,
            mesh=mesh, on_pass=lambda num_frames, inertia: progress.update(frames=num_frames, inertia=inertia),
        )  # fmt: skip


def save_codebook(folder: Path, codebook: Codebook) -> None:
    """Whole or not at all, with its digest."""
    with whole_folder(folder) as draft:
        write_arrays(draft / CODEBOOK_FILE, centroids_KD=codebook.centroids, inertia=codebook.inertia)
        seal(draft)


def load_codebook(folder: Path) -> Codebook | None:
    """What was saved, or None. One that is not as it was saved is removed, with a line in the log."""
    if not folder.exists():
        return None
    try:
        check_seal(folder)
    except DamagedError as error:
        log(f"{error}; the codebook is fitted again")
        shutil.rmtree(folder)
        return None
    arrays = read_arrays(folder / CODEBOOK_FILE, "centroids_KD", "inertia")
    return Codebook(arrays["centroids_KD"], float(arrays["inertia"]))
