"""k-means on device: k-means++ and full Lloyd passes in blocks of frames, and the assignment that labels a corpus.

Pure functions of arrays. Dims: N frames, B frames of one block, K clusters, D features.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

BLOCK_FRAMES = 4096  # rows of the largest [B, K] table of distances that exists at a time
STOP_GAIN = 1e-4  # a pass that lowers the inertia by less than this share of it is the last


@dataclasses.dataclass(frozen=True)
class Codebook:
    """Centroids float32 [K, D] and the mean squared distance of the frames they were fitted on."""

    centroids: np.ndarray
    inertia: float


def fit(
    frames_ND: jax.Array,
    num_clusters: int,
    *,
    key: jax.Array,
    passes: int,
    restarts: int,
    init_frames: int = 32_768,
) -> Codebook:
    """The best of `restarts` runs of k-means over frames of any floating dtype; the same key gives the same codebook.

    Each run starts from greedy k-means++ on `init_frames` random frames (at least ten a cluster) and makes at most
    `passes` Lloyd passes over all frames, fewer when the inertia stops falling. A cluster that loses all its frames
    moves to a frame that is far from every centroid. Raises ValueError for fewer frames than clusters and for frames
    that are not finite.
    """
    num_frames = len(frames_ND)
    if num_frames < num_clusters:
        raise ValueError(
            f"targets.num_clusters={num_clusters} is more than the {num_frames} frames to fit on; "
            "lower it, or raise targets.fit_share or targets.fit_max_frames"
        )
    frames_ND = jnp.asarray(frames_ND)
    init_frames = min(num_frames, max(init_frames, 10 * num_clusters))
    best = None
    for restart_key in jax.random.split(key, restarts):
        sample_key, seed_key = jax.random.split(restart_key)
        rows = jax.random.choice(sample_key, num_frames, (init_frames,), replace=False)
        centroids_KD = plus_plus(frames_ND[rows], num_clusters, seed_key)
        centroids_KD, inertia = lloyd(frames_ND, centroids_KD, passes=passes)
        if not np.isfinite(inertia):
            raise ValueError("the features to cluster are not finite; look at the encoder they come from")
        if best is None or inertia < best.inertia:
            best = Codebook(np.asarray(centroids_KD), float(inertia))
    return best


@jax.jit
def assign(frames_ND: jax.Array, centroids_KD: jax.Array) -> jax.Array:
    """int32 [N]: the nearest centroid of each frame, the lowest index among equals."""

    def label(i, ids_N):
        start, _, block_BD = _block(frames_ND, i)
        return jax.lax.dynamic_update_slice(ids_N, _nearest(block_BD, centroids_KD)[0], (start,))

    return jax.lax.fori_loop(0, _num_blocks(len(frames_ND)), label, jnp.zeros(len(frames_ND), jnp.int32))


@functools.partial(jax.jit, static_argnames="num_clusters")
def plus_plus(frames_ND: jax.Array, num_clusters: int, key: jax.Array) -> jax.Array:
    """Greedy k-means++: float32 [K, D], each centroid the best of a few frames drawn by squared distance."""
    x_ND = frames_ND.astype(jnp.float32)
    x_ND, mean_D = x_ND - x_ND.mean(0), x_ND.mean(0)
    norm_N = jnp.square(x_ND).sum(1)
    num_candidates = 2 + int(math.log(num_clusters))

    def distances(c_CD):
        d_CN = norm_N + jnp.square(c_CD).sum(1)[:, None] - 2 * jnp.dot(c_CD, x_ND.T, precision="highest")
        return jnp.maximum(d_CN, 0)

    def add(nearest_N, key):
        # Inverse of the cumulative distribution; where all frames are centroids already, any frame will do.
        total_N = jnp.cumsum(nearest_N)
        drawn_C = jax.random.uniform(key, (num_candidates,)) * total_N[-1]
        rows_C = jnp.minimum(jnp.searchsorted(total_N, drawn_C, side="right"), len(x_ND) - 1)
        after_CN = jnp.minimum(nearest_N, distances(x_ND[rows_C]))
        best = jnp.argmin(after_CN.sum(1))
        return after_CN[best], x_ND[rows_C[best]]

    first_key, key = jax.random.split(key)
    first_D = x_ND[jax.random.randint(first_key, (), 0, len(x_ND))]
    _, rest_KD = jax.lax.scan(add, distances(first_D[None])[0], jax.random.split(key, num_clusters - 1))
    return jnp.concatenate([first_D[None], rest_KD]) + mean_D


@functools.partial(jax.jit, static_argnames="passes")
def lloyd(frames_ND: jax.Array, centroids_KD: jax.Array, *, passes: int) -> tuple[jax.Array, jax.Array]:
    """At most `passes` full passes. Returns centroids [K, D] and their inertia (mean squared distance)."""

    def unfinished(state):
        i, _, inertia, previous = state
        return (i < passes) & (previous - inertia > STOP_GAIN * inertia)

    def one_pass(state):
        i, centroids_KD, inertia, _ = state
        new_KD, new_inertia = lloyd_pass(frames_ND, centroids_KD)
        return i + 1, new_KD, new_inertia, inertia

    start = (0, centroids_KD, jnp.float32(jnp.finfo(jnp.float32).max), jnp.float32(jnp.inf))
    _, centroids_KD, _, _ = jax.lax.while_loop(unfinished, one_pass, start)
    return centroids_KD, lloyd_pass(frames_ND, centroids_KD)[1]


@jax.jit
def lloyd_pass(frames_ND: jax.Array, centroids_KD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One pass: the centroids [K, D] after it, and the inertia of those before it."""
    num_frames, num_clusters = len(frames_ND), len(centroids_KD)

    def accumulate(i, state):
        sums_KD, counts_K, distance_N = state
        start, new_B, block_BD = _block(frames_ND, i)
        ids_B, distance_B = _nearest(block_BD, centroids_KD)
        # A matmul with one-hot rows, not a scatter: its order of summation is fixed on every device.
        member_BK = (ids_B[:, None] == jnp.arange(num_clusters)) * new_B[:, None].astype(jnp.float32)
        sums_KD += jnp.dot(member_BK.T, block_BD, precision="highest")
        counts_K += member_BK.sum(0)
        return sums_KD, counts_K, jax.lax.dynamic_update_slice(distance_N, distance_B, (start,))

    zeros = jnp.zeros_like(centroids_KD), jnp.zeros(num_clusters), jnp.zeros(num_frames)
    sums_KD, counts_K, distance_N = jax.lax.fori_loop(0, _num_blocks(num_frames), accumulate, zeros)
    means_KD = sums_KD / jnp.maximum(counts_K, 1)[:, None]
    empty_K = counts_K == 0

    def reseed(means_KD):
        far_K = jax.lax.top_k(distance_N, num_clusters)[1]
        rank_K = jnp.cumsum(empty_K) - 1  # the j-th empty cluster takes the j-th farthest frame
        return jnp.where(empty_K[:, None], frames_ND[far_K[rank_K]].astype(jnp.float32), means_KD)

    return jax.lax.cond(empty_K.any(), reseed, lambda means_KD: means_KD, means_KD), distance_N.mean()


def _num_blocks(num_frames: int) -> int:
    return -(-num_frames // BLOCK_FRAMES)


def _block(frames_ND: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Block i as (first row, bool [B], float32 [B, D]); the last one reaches back, False on rows already seen."""
    size = min(BLOCK_FRAMES, len(frames_ND))
    start = jnp.minimum(i * BLOCK_FRAMES, len(frames_ND) - size)
    block_BD = jax.lax.dynamic_slice_in_dim(frames_ND, start, size).astype(jnp.float32)
    return start, start + jnp.arange(size) >= i * BLOCK_FRAMES, block_BD


def _nearest(x_BD: jax.Array, centroids_KD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Ids int32 [B] of the nearest centroids and the squared distances [B] to them."""
    # |x|^2 - 2xc + |c|^2 loses its digits to a large common offset: take it off first.
    offset_D = centroids_KD.mean(0)
    x_BD, c_KD = x_BD - offset_D, centroids_KD - offset_D
    score_BK = jnp.square(c_KD).sum(1) - 2 * jnp.dot(x_BD, c_KD.T, precision="highest")
    ids_B = jnp.argmin(score_BK, axis=1).astype(jnp.int32)
    return ids_B, jnp.maximum(score_BK.min(1) + jnp.square(x_BD).sum(1), 0)
