"""Where k-means starts: k-means++ for few clusters, k-means|| for many, on a sample that one device holds.

Pure functions of arrays. Dims: N frames, K clusters, D features, C candidates.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from mmpretrain.randomness import keys_of, named

# Each cluster costs k-means++ one pass over the frames. Above this many, k-means||: a few passes in all, but an inertia
# about 1 % higher (200,000 x 768, 500 clusters, benchmarks/kmeans.py).
PLUS_PLUS_CLUSTERS = 1024
PARALLEL_ROUNDS = 5  # Bahmani et al. 2012, section 4.2.1: five rounds of K candidates are as good as k-means++
TILE_FRAMES = 1024


def initial_centroids(frames_ND: jax.Array, num_clusters: int, key: jax.Array) -> jax.Array:
    """float32 [K, D]: k-means++ up to `PLUS_PLUS_CLUSTERS` clusters, k-means|| above."""
    if num_clusters <= PLUS_PLUS_CLUSTERS:
        return plus_plus(frames_ND, jnp.ones(len(frames_ND)), num_clusters, key)
    return parallel(frames_ND, num_clusters, key)


@functools.partial(jax.jit, static_argnames="num_clusters")
def plus_plus(frames_ND: jax.Array, weights_N: jax.Array, num_clusters: int, key: jax.Array) -> jax.Array:
    """Greedy k-means++ of weighted frames: float32 [K, D], each the best of a few drawn by weighted squared distance.

    Arthur and Vassilvitskii 2007, with the 2 + log K trials of their section 6.
    """
    x_ND, mean_D = _centred(frames_ND)
    norm_N = jnp.square(x_ND).sum(1)
    num_trials = 2 + int(math.log(num_clusters))

    def distances(c_CD):
        d_CN = norm_N + jnp.square(c_CD).sum(1)[:, None] - 2 * jnp.dot(c_CD, x_ND.T, precision="highest")
        return jnp.maximum(d_CN, 0)

    def add(nearest_N, key):
        rows_C = _draw(weights_N * nearest_N, key, num_trials)
        after_CN = jnp.minimum(nearest_N, distances(x_ND[rows_C]))
        best = jnp.argmin((weights_N * after_CN).sum(1))
        return after_CN[best], x_ND[rows_C[best]]

    first_D = x_ND[_draw(weights_N, named(key, "first"), 1)[0]]
    keys = keys_of(named(key, "others"), jnp.arange(num_clusters - 1))
    _, rest_KD = jax.lax.scan(add, distances(first_D[None])[0], keys)
    return jnp.concatenate([first_D[None], rest_KD]) + mean_D


@functools.partial(jax.jit, static_argnames="num_clusters")
def parallel(frames_ND: jax.Array, num_clusters: int, key: jax.Array) -> jax.Array:
    """k-means||: float32 [K, D], by k-means++ among candidates that stand for the frames nearest to them.

    Each round draws K candidates at once by squared distance to those there are (Bahmani et al. 2012, algorithm 2,
    with a fixed number of draws in place of independent ones).
    """
    x_ND, mean_D = _centred(frames_ND)

    def nearest(c_CD):
        norm_C = jnp.square(c_CD).sum(1)

        def one(x_D):
            d_C = norm_C - 2 * jnp.dot(c_CD, x_D, precision="highest") + jnp.square(x_D).sum()
            return jnp.maximum(d_C.min(), 0), d_C.argmin()

        return jax.lax.map(one, x_ND, batch_size=TILE_FRAMES)

    def add(state, round_and_key):
        distance_N, owner_N = state
        number, key = round_and_key
        rows_C = _draw(distance_N, key, num_clusters)
        new_N, new_owner_N = nearest(x_ND[rows_C])
        # Among equals the earlier candidate keeps the frame: one drawn twice weighs nothing the second time.
        owner_N = jnp.where(new_N < distance_N, 1 + number * num_clusters + new_owner_N, owner_N)
        return (jnp.minimum(distance_N, new_N), owner_N), rows_C

    first = _draw(jnp.ones(len(x_ND)), named(key, "first candidate"), 1)
    numbers = jnp.arange(PARALLEL_ROUNDS)
    rounds = numbers, keys_of(named(key, "candidates"), numbers)
    start = nearest(x_ND[first])[0], jnp.zeros(len(x_ND), jnp.int32)
    (_, owner_N), rows = jax.lax.scan(add, start, rounds)
    candidates_CD = x_ND[jnp.concatenate([first, rows.reshape(-1)])]
    weights_C = jnp.zeros(len(candidates_CD)).at[owner_N].add(1.0)
    return plus_plus(candidates_CD, weights_C, num_clusters, named(key, "among candidates")) + mean_D


def _centred(frames_ND: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 frames about their mean: |x|^2 - 2xc + |c|^2 loses its digits to a large common offset."""
    x_ND = frames_ND.astype(jnp.float32)
    mean_D = x_ND.mean(0)
    return x_ND - mean_D, mean_D


def _draw(mass_N: jax.Array, key: jax.Array, count: int) -> jax.Array:
    """int32 [count]: rows drawn with probability in proportion to their mass; where all mass is 0, the last row."""
    total_N = jnp.cumsum(mass_N)
    drawn = jax.random.uniform(key, (count,)) * total_N[-1]
    return jnp.minimum(jnp.searchsorted(total_N, drawn, side="right"), len(mass_N) - 1)
