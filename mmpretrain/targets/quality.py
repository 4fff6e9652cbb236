"""How good cluster ids are: against known units (purity, PNMI as in HuBERT) and by themselves (usage, entropy, runs).

Dims: N frames of all clips one after another, U kinds of units, K clusters.
"""

from __future__ import annotations

import numpy as np

from mmpretrain.data.clips import ClipTable


def cluster_quality(
    clusters_N: np.ndarray,
    units_N: np.ndarray | None,
    num_clusters: int,
    offsets: np.ndarray | None = None,
) -> dict[str, float]:
    """Figures by name, for the lineage of a target store.

    clusters_N: ids in 0..num_clusters-1. units_N: the true unit of each frame, negative where it is unknown, or None.
    offsets: clip i is frames offsets[i] to offsets[i+1]; None: all is one clip.

    Always: num_clusters, clusters_used, entropy_bits and perplexity (of the share of frames of each cluster),
    mean_run_frames (mean number of frames in a row, within a clip, of the same cluster). With a known unit:
    purity (share of frames whose unit is the commonest of their cluster), cluster_purity (share of frames whose
    cluster is the commonest of their unit) and pnmi (mutual information of unit and cluster, as a share of the entropy
    of the units; 0 where there is one unit only). Raises ValueError for no frames or for an id out of range.
    """
    clusters_N = np.asarray(clusters_N)
    if not len(clusters_N):
        raise ValueError("there are no frames to judge the clusters on")
    if clusters_N.min() < 0 or clusters_N.max() >= num_clusters:
        raise ValueError(f"cluster ids {clusters_N.min()}..{clusters_N.max()} are not all in 0..{num_clusters - 1}")
    counts_K = np.bincount(clusters_N, minlength=num_clusters)
    entropy = entropy_bits(counts_K)
    quality = {
        "num_clusters": float(num_clusters),
        "clusters_used": float((counts_K > 0).sum()),
        "entropy_bits": entropy,
        "perplexity": float(2**entropy),
        "mean_run_frames": float(run_lengths(clusters_N, offsets)[1].mean()),
    }
    if units_N is None or not (np.asarray(units_N) >= 0).any():
        return quality
    joint_UK = joint_counts(clusters_N, units_N, num_clusters)
    return quality | {
        "purity": float(joint_UK.max(0).sum() / joint_UK.sum()),
        "cluster_purity": float(joint_UK.max(1).sum() / joint_UK.sum()),
        "pnmi": shared_information(joint_UK),
    }


def known_units(table: ClipTable, targets_per_frame: int = 1) -> np.ndarray:
    """The true units of all frames of a table in order, int32 [N], -1 where unknown; empty if no clip has any.

    Each is repeated `targets_per_frame` times.
    """
    has_units = table.has("units")
    if not has_units.any():
        return np.zeros(0, np.int32)
    units = [
        table.load(row).tracks["units"] if has else np.full(length, -1, np.int32)
        for row, (has, length) in enumerate(zip(has_units, table.lengths, strict=True))
    ]
    flat = np.concatenate(units)
    return np.repeat(flat, targets_per_frame) if (flat >= 0).any() else np.zeros(0, np.int32)


def run_lengths(clusters_N: np.ndarray, offsets: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each run of equal ids within a clip, and how many frames it has: [R] and int64 [R]."""
    starts = np.ones(len(clusters_N), bool)
    starts[1:] = clusters_N[1:] != clusters_N[:-1]
    if offsets is not None:
        first = np.asarray(offsets)[:-1]
        starts[first[first < len(starts)]] = True
    first = np.flatnonzero(starts)
    return clusters_N[first], np.diff(first, append=len(clusters_N))


def joint_counts(clusters_N: np.ndarray, units_N: np.ndarray, num_clusters: int) -> np.ndarray:
    """int64 [U, K]: how many frames are of each unit and cluster. Units are 0..U-1; negative ones are not counted."""
    clusters_N, units_N = np.asarray(clusters_N, np.int64), np.asarray(units_N, np.int64)
    known_N, num_units = units_N >= 0, int(units_N.max(initial=-1)) + 1
    cells_N = units_N[known_N] * num_clusters + clusters_N[known_N]
    return np.bincount(cells_N, minlength=num_units * num_clusters).reshape(num_units, num_clusters)


def shared_information(joint_UK: np.ndarray) -> float:
    """Mutual information of unit and cluster as a share of the entropy of the units; 0 where there is one unit only.

    With phones as units this is the PNMI of HuBERT (Hsu et al. 2021, section IV.G). With the speaker of the clip as
    unit it is how much the cluster of one frame tells of who speaks.
    """
    unit_entropy = entropy_bits(joint_UK.sum(1))
    if unit_entropy == 0:
        return 0.0
    return max(0.0, (unit_entropy + entropy_bits(joint_UK.sum(0)) - entropy_bits(joint_UK)) / unit_entropy)


def entropy_bits(counts: np.ndarray) -> float:
    """Of counts of any shape, at least one of which is not 0."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0  # no negative zero
