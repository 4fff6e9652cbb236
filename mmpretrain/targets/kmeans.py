"""k-means of frames in host memory, streamed block by block over the mesh: fitting a codebook, and labelling with it.

Frames live over the mesh axes of `batch`, clusters over those of `clusters` (parallel/mesh.py). Distances are float32
matmuls at JAX's precision "highest", on every device. Dims: N frames, K clusters, D features; a block is [T, S, B, D]:
T tiles, one after the other, of S parts, one for each place of the batch axes, of B frames.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mmpretrain.config import ParallelConfig
from mmpretrain.parallel.flight import one_behind
from mmpretrain.parallel.mesh import batch_multiple, make_mesh, of_main, spec_of
from mmpretrain.parallel.stopping import check_stop
from mmpretrain.randomness import named, numbered
from mmpretrain.targets.kmeans_init import initial_centroids

TILE_FRAMES = 1024  # B: a table of distances is [B, K] on each device, small enough for a CPU's cache
TILES = 32  # T: frames go to the devices TILES x TILE_FRAMES at a time
START_FRAMES = 32_768  # the first batch: where the restarts compete, ...
START_FRAMES_PER_CLUSTER = 64  # ... or this many a cluster, if that is more
BATCH_GROWTH = 4  # each batch of frames has this many times as many as the one before
BATCH_STOP_GAIN = 1e-2  # a pass over a batch that lowers the inertia by less than this share is the last,
STOP_GAIN = 1e-4  # and so is one over all frames by less than this
RESIDENT_BYTES = 1 << 30  # of frames may stay between passes on a device that does not tell its memory (a CPU)

OnPass = Callable[[int, float], None]  # is told the number of frames and the inertia


@dataclasses.dataclass(frozen=True)
class Codebook:
    """Centroids float32 [K, D] and the mean squared distance of the frames they were fitted on."""

    centroids: np.ndarray
    inertia: float


def fit(
    frames_ND: np.ndarray,
    num_clusters: int,
    *,
    key: jax.Array,
    passes: int,
    restarts: int,
    mesh: Mesh | None = None,
    on_pass: OnPass = lambda num_frames, inertia: None,
) -> Codebook:
    """k-means of frames of any floating dtype, in memory or memory-mapped; mesh None: the first device.

    Mini-batch first: the best of `restarts` starts on a small random batch goes on to batches that hold the ones before
    and grow (nested mini-batch k-means, Newling and Fleuret 2016), as long as they stay on the devices. Then at most
    `passes` Lloyd passes over all frames, fewer when the inertia stops falling. A cluster that loses all its frames
    moves to a frame that is far from every centroid. `on_pass` hears the frames and the inertia of every pass. Raises
    Stopped between two blocks if the run was asked to stop.

    The same key on the same mesh gives the same codebook, on another mesh one that differs by rounding. The processes
    of a mesh call it together, all with the whole sample. Raises ValueError for fewer frames than clusters and for
    frames that are not finite.
    """
    frames_ND = np.asarray(frames_ND)
    num_frames = len(frames_ND)
    if num_frames < num_clusters:
        raise ValueError(
            f"targets.num_clusters={num_clusters} is more than the {num_frames} frames to fit on; "
            "lower it, or raise targets.fit_share or targets.fit_max_frames"
        )
    mesh = mesh or _one_device()
    order_N = np.asarray(jax.random.permutation(named(key, "order"), num_frames))
    sizes = _batch_sizes(frames_ND, num_clusters, _resident_bytes(mesh))
    batch = Blocks(frames_ND[np.sort(order_N[: sizes[0]])], mesh)
    best = None
    for restart in range(restarts):
        check_stop()
        restart_key = numbered(named(key, "restarts"), restart)
        start_KD = np.asarray(initial_centroids(batch.frames_ND, num_clusters, restart_key))
        start_KD = of_main(start_KD)  # another processor may round otherwise, and then draw otherwise
        codebook = lloyd(batch, start_KD, passes=passes, stop_gain=BATCH_STOP_GAIN, on_pass=on_pass)
        if best is None or codebook.inertia < best.inertia:
            best = codebook
    for size in sizes[1:]:
        batch = Blocks(frames_ND[np.sort(order_N[:size])], mesh)
        best = lloyd(batch, best.centroids, passes=passes, stop_gain=BATCH_STOP_GAIN, on_pass=on_pass)
    return lloyd(Blocks(frames_ND, mesh), best.centroids, passes=passes, on_pass=on_pass)


def assign(frames_ND: np.ndarray, centroids_KD: np.ndarray, *, mesh: Mesh | None = None) -> np.ndarray:
    """int32 [N]: the nearest centroid of each frame, the lowest index among equals.

    Raises ValueError for frames that are not finite.
    """
    blocks = Blocks(frames_ND, mesh)
    begun = (_label(block, centroids_KD, mesh=blocks.mesh) for block, _ in blocks)
    return _finite([np.asarray(ids).reshape(-1) for ids in one_behind(begun)], frames_ND, centroids_KD)


def begin_assign(
    frames_ND: np.ndarray, centroids_KD: np.ndarray | jax.Array, *, mesh: Mesh
) -> Callable[[], np.ndarray]:
    """`assign` of a few frames, begun now: the devices work while the caller does something else. Returns what waits.

    centroids_KD: best placed on the devices of the mesh before.
    """
    begun = [_label(block, centroids_KD, mesh=mesh) for block, _ in Blocks(frames_ND, mesh)]
    return lambda: _finite([np.asarray(ids).reshape(-1) for ids in begun], frames_ND, centroids_KD)


def _finite(ids: list[np.ndarray], frames_ND: np.ndarray, centroids_KD: np.ndarray | jax.Array) -> np.ndarray:
    ids_N = np.concatenate([np.zeros(0, np.int32), *ids])[: len(frames_ND)]
    if (ids_N == len(centroids_KD)).any():
        raise ValueError(NOT_FINITE)
    return ids_N


NOT_FINITE = "the features to cluster are not finite; look at the encoder they come from"


class Blocks:
    """Frames as equal blocks on the mesh, the last one filled up with zeros. mesh None: the first device.

    Few frames are placed on the devices once; of many, every pass sends each block anew.
    """

    def __init__(self, frames_ND: np.ndarray, mesh: Mesh | None = None):
        frames_ND, mesh = np.asarray(frames_ND), mesh or _one_device()
        self.frames_ND, self.mesh = frames_ND, mesh
        parts = batch_multiple(mesh)
        per_part = max(1, -(-len(frames_ND) // parts))
        # Small samples take powers of two, so that few shapes are compiled.
        tile = min(TILE_FRAMES, 1 << (per_part - 1).bit_length())
        tiles = min(TILES, 1 << (-(-per_part // tile) - 1).bit_length())
        self.shape = (tiles, parts, tile, frames_ND.shape[1])
        self.block_frames = tiles * parts * tile
        self.sharding = NamedSharding(mesh, spec_of((None, "batch", None, None), self.shape, mesh))
        self._placed = list(self._place()) if frames_ND.nbytes <= _resident_bytes(mesh) else None

    def __iter__(self) -> Iterator[tuple[jax.Array, int]]:
        """(block, number of its frames that are no filling)"""
        return iter(self._placed) if self._placed is not None else self._place()

    def _place(self) -> Iterator[tuple[jax.Array, int]]:
        for start in range(0, len(self.frames_ND), self.block_frames):
            rows = self.frames_ND[start : start + self.block_frames]
            filled = rows
            if len(rows) < self.block_frames:
                filled = np.zeros((self.block_frames, rows.shape[1]), rows.dtype)
                filled[: len(rows)] = rows
            # Each process reads the rows of its own devices only.
            block = jax.make_array_from_callback(self.shape, self.sharding, filled.reshape(self.shape).__getitem__)
            yield block, len(rows)


def lloyd(
    blocks: Blocks,
    centroids_KD: np.ndarray,
    *,
    passes: int,
    stop_gain: float = STOP_GAIN,
    on_pass: OnPass = lambda num_frames, inertia: None,
) -> Codebook:
    """At most `passes` passes from these centroids; one that lowers the inertia by less than `stop_gain` is the last.

    Raises ValueError for frames that are not finite.
    """
    previous = math.inf
    for number in range(passes + 1):
        means_KD, counts_K, inertia, distance_N = _one_pass(blocks, centroids_KD)
        if not math.isfinite(inertia):
            raise ValueError(NOT_FINITE)
        on_pass(len(blocks.frames_ND), inertia)
        settled = previous - inertia <= stop_gain * inertia and counts_K.all()
        if settled or number == passes:
            return Codebook(centroids_KD, inertia)
        centroids_KD, previous = means_KD, inertia
        if not counts_K.all():
            centroids_KD[counts_K == 0] = blocks.frames_ND[_farthest(distance_N, int((counts_K == 0).sum()))]


def _one_pass(blocks: Blocks, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, list[jax.Array]]:
    """One pass: the means [K, D] and counts [K] of the clusters, the inertia of the centroids, distances by block."""
    num_clusters, dim = centroids_KD.shape
    state = _zeros(num_clusters, dim, mesh=blocks.mesh)
    distances = []
    for block, num_real in blocks:
        before, (state, distance_B) = state, _accumulate(state, block, num_real, centroids_KD, mesh=blocks.mesh)
        distances.append(distance_B)
        # While the devices work on this block the next is read and sent; no more than that, so that memory is bounded.
        jax.block_until_ready(before)
        check_stop()
    means_KD, counts_K, total = _totals(state, centroids_KD, mesh=blocks.mesh)
    return np.array(means_KD), np.asarray(counts_K), float(total) / len(blocks.frames_ND), distances


def _farthest(distances: list[jax.Array], count: int) -> np.ndarray:
    distance_N = np.concatenate([np.asarray(block).reshape(-1) for block in distances])
    return np.argsort(-distance_N, kind="stable")[:count]


@functools.partial(jax.jit, static_argnames=("num_clusters", "dim", "mesh"))
def _zeros(num_clusters: int, dim: int, *, mesh: Mesh) -> tuple[jax.Array, jax.Array, jax.Array]:
    parts = batch_multiple(mesh)
    sums_SKD = _constrain(jnp.zeros((parts, num_clusters, dim)), ("batch", "clusters", None), mesh)
    counts_SK = _constrain(jnp.zeros((parts, num_clusters), jnp.int32), ("batch", "clusters"), mesh)
    return sums_SKD, counts_SK, _constrain(jnp.zeros(parts), ("batch",), mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _accumulate(state, block_TSBD, num_real, centroids_KD, *, mesh: Mesh):
    """Adds a block to the sums of each part; nothing but the minima of the distances crosses devices."""
    tiles, parts, tile, _ = block_TSBD.shape
    offset_D = centroids_KD.mean(0)
    real_TSB = (jnp.arange(tiles * parts * tile) < num_real).reshape(tiles, parts, tile)

    def add(state, x):
        sums_SKD, counts_SK, inertia_S = state
        x_SBD, real_SB = x
        x_SBD = x_SBD.astype(jnp.float32) - offset_D
        ids_SB, distance_SB = _nearest(x_SBD, centroids_KD - offset_D, mesh)
        member_SBK = (ids_SB[..., None] == jnp.arange(len(centroids_KD))) & real_SB[..., None]
        member_SBK = _constrain(member_SBK, ("batch", None, "clusters"), mesh)
        # A matmul with one-hot rows, not a scatter: its order of summation is fixed on every device.
        new_SKD = jnp.einsum("sbk,sbd->skd", member_SBK.astype(jnp.float32), x_SBD, precision="highest")
        distance_SB = jnp.where(real_SB, distance_SB, 0)
        state = sums_SKD + new_SKD, counts_SK + member_SBK.sum(1, dtype=jnp.int32), inertia_S + distance_SB.sum(1)
        return state, distance_SB

    state, distance_TSB = jax.lax.scan(add, state, (block_TSBD, real_TSB))
    return state, _constrain(distance_TSB, (None, None, None), mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _totals(state, centroids_KD, *, mesh: Mesh):
    sums_SKD, counts_SK, inertia_S = state
    counts_K = counts_SK.sum(0)
    means_KD = sums_SKD.sum(0) / jnp.maximum(counts_K, 1)[:, None] + centroids_KD.mean(0)
    whole = functools.partial(_constrain, mesh=mesh)
    return whole(means_KD, (None, None)), whole(counts_K, (None,)), whole(inertia_S.sum(), ())


@functools.partial(jax.jit, static_argnames="mesh")
def _label(block_TSBD, centroids_KD, *, mesh: Mesh):
    ids_TSB = jax.lax.map(lambda x_SBD: _nearest_ids(x_SBD, centroids_KD, mesh), block_TSBD)
    return _constrain(ids_TSB, (None, None, None), mesh)


def nearest_ids(x_BTD: jax.Array, centroids_KD: jax.Array, *, mesh: Mesh) -> jax.Array:
    """`assign` within a program that made the frames: int32 [B, T]; K, which is no id, where a frame is not finite.

    B clips of T frames, over the mesh axes of `batch`. Distances are made for `TILE_FRAMES` frames of a clip at a time.
    """
    num_clips, num_frames, dim = x_BTD.shape
    tile = min(num_frames, TILE_FRAMES)
    tiles = -(-num_frames // tile)
    x_BTD = jnp.pad(x_BTD, ((0, 0), (0, tiles * tile - num_frames), (0, 0)))
    x_NBTD = x_BTD.reshape(num_clips, tiles, tile, dim).swapaxes(0, 1)
    ids_NBT = jax.lax.map(lambda x_BTD: _nearest_ids(x_BTD, centroids_KD, mesh), x_NBTD)
    return ids_NBT.swapaxes(0, 1).reshape(num_clips, tiles * tile)[:, :num_frames]


def _nearest_ids(x_SBD: jax.Array, centroids_KD: jax.Array, mesh: Mesh) -> jax.Array:
    offset_D = centroids_KD.mean(0)
    return _nearest(x_SBD.astype(jnp.float32) - offset_D, centroids_KD - offset_D, mesh)[0]


def _nearest(x_SBD: jax.Array, centroids_KD: jax.Array, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """Ids int32 [S, B] of the nearest centroids (K where a frame is not finite) and the squared distances [S, B].

    |x|^2 - 2xc + |c|^2 loses its digits to a large common offset: the caller takes it off both.
    """
    num_clusters = len(centroids_KD)
    c_KD = _constrain(centroids_KD, ("clusters", None), mesh)
    score_SBK = jnp.square(c_KD).sum(1) - 2 * jnp.einsum("sbd,kd->sbk", x_SBD, c_KD, precision="highest")
    score_SBK = _constrain(score_SBK, ("batch", None, "clusters"), mesh)
    least_SB = score_SBK.min(-1)
    # Two plain minima: on a CPU twice as fast as argmin, and over a mesh they need no gathering.
    ids_SB = jnp.where(score_SBK == least_SB[..., None], jnp.arange(num_clusters), num_clusters).min(-1)
    ids_SB = jnp.where(jnp.isfinite(least_SB), ids_SB, num_clusters)  # of an infinite frame some score is the least too
    return ids_SB.astype(jnp.int32), jnp.maximum(least_SB + jnp.square(x_SBD).sum(-1), 0)


def _constrain(x: jax.Array, axes: tuple[str | None, ...], mesh: Mesh) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec_of(axes, x.shape, mesh)))


def _batch_sizes(frames_ND: np.ndarray, num_clusters: int, resident_bytes: int) -> list[int]:
    """Frames of each batch before the passes over all: the first, then larger ones as long as the devices hold them."""
    num_frames = len(frames_ND)
    sizes = [min(num_frames, max(START_FRAMES, START_FRAMES_PER_CLUSTER * num_clusters))]
    while (size := BATCH_GROWTH * sizes[-1]) < num_frames and size * frames_ND[0].nbytes <= resident_bytes:
        sizes.append(size)
    return sizes


def _resident_bytes(mesh: Mesh) -> int:
    """What may stay on the devices between passes: a quarter of their memory, or `RESIDENT_BYTES` each."""
    stats = mesh.local_devices[0].memory_stats() or {}
    return batch_multiple(mesh) * (stats["bytes_limit"] // 4 if "bytes_limit" in stats else RESIDENT_BYTES)


def _one_device() -> Mesh:
    return make_mesh(ParallelConfig(), jax.local_devices()[:1])
