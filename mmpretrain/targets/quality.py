"""How good cluster ids are: against known units (purity, PNMI as in HuBERT) and by themselves (usage, entropy, runs).

Dims: N frames of all clips one after another, U kinds of units, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 22  # ids at a time: counting widens them to 64 bits


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
    counts_K = cluster_counts(clusters_N, num_clusters)
    entropy = entropy_bits(counts_K)
    quality = {
        "num_clusters": float(num_clusters),
        "clusters_used": float((counts_K > 0).sum()),
        "entropy_bits": entropy,
        "perplexity": float(2**entropy),
        "mean_run_frames": float(len(clusters_N) / _num_runs(clusters_N, offsets)),
    }
    if units_N is None or not (np.asarray(units_N) >= 0).any():
        return quality
    return quality | agreement(joint_counts(clusters_N, units_N, num_clusters))


def agreement(joint_UK: np.ndarray) -> dict[str, float]:
    """purity, cluster_purity and pnmi, as `cluster_quality` has them, of frames counted by unit and cluster."""
    return {
        "purity": float(joint_UK.max(0).sum() / joint_UK.sum()),
        "cluster_purity": float(joint_UK.max(1).sum() / joint_UK.sum()),
        "pnmi": shared_information(joint_UK),
    }


def cluster_counts(clusters_N: np.ndarray, num_clusters: int) -> np.ndarray:
    """int64 [K]: the frames of each cluster. Raises ValueError for an id out of range."""
    counts_K = np.zeros(num_clusters, np.int64)
    for block in _blocks(clusters_N):
        if block.min() < 0 or block.max() >= num_clusters:
            raise ValueError(f"cluster ids {block.min()}..{block.max()} are not all in 0..{num_clusters - 1}")
        counts_K += np.bincount(block, minlength=num_clusters)
    return counts_K


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
    clusters_N, units_N = np.asarray(clusters_N), np.asarray(units_N)
    num_units = int(units_N.max(initial=-1)) + 1
    joint_UK = np.zeros((num_units, num_clusters), np.int64)
    for clusters, units in zip(_blocks(clusters_N), _blocks(units_N), strict=True):
        known = units >= 0
        cells = units[known].astype(np.int64) * num_clusters + clusters[known]
        joint_UK += np.bincount(cells, minlength=joint_UK.size).reshape(joint_UK.shape)
    return joint_UK


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


def _num_runs(clusters_N: np.ndarray, offsets: np.ndarray | None) -> int:
    changes = sum(int((block[1:] != block[:-1]).sum()) for block in _blocks(clusters_N, overlap=1))
    if offsets is None:
        return 1 + changes
    first = np.unique(offsets)
    first = first[(first > 0) & (first < len(clusters_N))]
    return 1 + changes + int((clusters_N[first] == clusters_N[first - 1]).sum())  # a run ends with its clip


def _blocks(values_N: np.ndarray, overlap: int = 0) -> Iterator[np.ndarray]:
    return (values_N[start : start + _BLOCK + overlap] for start in range(0, len(values_N), _BLOCK))
