"""The device mesh of a run, and the one table that says where each logical axis lives."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmpretrain.config import ParallelConfig

Tree = TypeVar("Tree")  # a pytree of arrays

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. A dim whose size the mesh axes do not divide stays whole.
RULES: dict[str, str | tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "frames": MESH_AXES,  # of a batch's clips, for what looks at each frame by itself
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "clusters": "tensor",
    "channels": "fsdp",
}


def make_mesh(config: ParallelConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices` (default: all) with the axes of `MESH_AXES`; one size may be -1.

    Raises ValueError if it cannot be.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, axis) for axis in MESH_AXES]
    if sizes.count(-1) == 1:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = max(1, len(devices) // known)
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f"parallel={dict(zip(MESH_AXES, sizes, strict=True))} does not multiply to the {len(devices)} devices of "
            f"this run; set one of parallel.data, parallel.fsdp, parallel.tensor to -1"
        )
    auto = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
    if config.slices > 1:
        if sizes[0] % config.slices:
            raise ValueError(
                f"parallel.slices={config.slices} does not divide parallel.data={sizes[0]}, which is to span them; "
                f"set parallel.slices to the number of TPU slices or nodes of this run"
            )
        # Neighbours on the data axis are in one slice as long as that goes: only the sum of gradients leaves it.
        inner, outer = (sizes[0] // config.slices, *sizes[1:]), (config.slices, 1, 1)
        by_process = getattr(devices[0], "slice_index", None) is None
        try:
            grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices, process_is_granule=by_process)
        except (ValueError, AssertionError) as error:
            unit = "processes" if by_process else "slices"
            raise ValueError(
                f"parallel.slices={config.slices} is not the number of {unit} of this run: {error}"
            ) from error
        return Mesh(grid, MESH_AXES, axis_types=auto)
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=auto, devices=devices)


def spec_of(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> P:
    """The PartitionSpec of an array whose dims have these logical names.

    A rank one higher than the number of names is a stack of layers: its leading dim is whole on every device.
    """
    if len(shape) == len(axes) + 1:
        axes = (None, *axes)
    spec, used = [], set()
    for axis, size in zip(axes, shape, strict=True):
        places = RULES.get(axis, ()) if axis else ()
        places = (places,) if isinstance(places, str) else places
        parts = math.prod(mesh.shape[place] for place in places)
        fits = parts > 1 and size % parts == 0 and not used & set(places)
        spec.append((places if len(places) > 1 else places[0]) if fits else None)
        used |= set(places) if fits else set()
    return P(*spec)


def shardings(tree: Tree, mesh: Mesh) -> Tree:
    """NamedShardings for a pytree of (abstract) Flax variables and arrays, by the variables' `axes`."""

    def one(leaf):
        if isinstance(leaf, nnx.Variable):
            spec = spec_of(leaf.get_metadata().get("axes", (None,) * leaf.ndim), leaf.shape, mesh)
            return leaf.replace(NamedSharding(mesh, spec))
        return NamedSharding(mesh, P())

    return jax.tree.map(one, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(RULES["batch"]))


def batch_multiple(mesh: Mesh) -> int:
    """The number of clips in a global batch must be a multiple of this."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


@dataclasses.dataclass(frozen=True)
class FrameShares:
    """How the frames of a batch are shared out over all devices of a mesh, and brought back to their clips. In `jit`.

    Clips are cut over some axes alone (`batch_sharding`), and each device of the others has a copy of them: it takes
    its share of their frames, so that no frame moves on its way there.
    """

    mesh: Mesh

    @property
    def parts(self) -> int:
        """The devices, among which the frames of all clips are to be divided."""
        return math.prod(self.mesh.shape[axis] for axis in RULES["frames"])

    @property
    def per_clip(self) -> int:
        """The number of frames of a clip is to be a multiple of this."""
        return self.parts // batch_multiple(self.mesh)

    @property
    def platform(self) -> str:
        """What the devices are: "cpu", "gpu" or "tpu"."""
        return self.mesh.devices.flat[0].platform

    def share_out(self, x_N: jax.Array) -> jax.Array:
        """Frames [N, ...], clip after clip."""
        # First as their clips are, or XLA would cut what the frames are made of, and all beside it, in the same way.
        return jax.lax.with_sharding_constraint(self.bring_back(x_N), NamedSharding(self.mesh, P(RULES["frames"])))

    def bring_back(self, x_N: jax.Array) -> jax.Array:
        """What came of them, [N, ...], to every device that has their clips."""
        return jax.lax.with_sharding_constraint(x_N, batch_sharding(self.mesh))


def cut_batch(tree: Tree, num_parts: int, mesh: Mesh) -> Tree:
    """Arrays [B, ...] cut along clips into parts to go through one after another: [num_parts, B / num_parts, ...].

    Within `jit`. Every device cuts its own rows, so none moves: part i has the clips i, i + num_parts, ...
    """
    sharding = NamedSharding(mesh, P(None, RULES["batch"]))

    def cut(x: jax.Array) -> jax.Array:
        parts = x.reshape(len(x) // num_parts, num_parts, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(parts, sharding)

    return jax.tree.map(cut, tree)


def local_mesh(mesh: Mesh) -> Mesh:
    """The same axes over this process's devices alone, for what one process does by itself."""
    if jax.process_count() == 1:
        return mesh
    return make_mesh(ParallelConfig(), jax.local_devices())


def process_rows(mesh: Mesh, num_clips: int) -> np.ndarray:
    """int [n]: the rows of a global batch that this process makes, those which its devices hold."""
    places = batch_sharding(mesh).addressable_devices_indices_map((num_clips,)).values()
    return np.unique(np.concatenate([np.arange(num_clips)[index] for index in places]))


def shard_batch(batch: Tree, mesh: Mesh) -> Tree:
    """This process's rows of a batch (NumPy, leading dim clips, as `process_rows`) as global arrays over the mesh."""
    sharding = batch_sharding(mesh)
    parts = batch_multiple(mesh)
    own_parts = len(process_rows(mesh, parts))

    def place(local: np.ndarray) -> jax.Array:
        num_clips = len(local) * parts // own_parts
        position = {row: i for i, row in enumerate(process_rows(mesh, num_clips).tolist())}

        def piece(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(num_clips)
            return local[position[start] : position[start] + stop - start]

        return jax.make_array_from_callback((num_clips, *local.shape[1:]), sharding, piece)

    return jax.tree.map(lambda x: place(np.asarray(x)), batch)


def own_rows(array: jax.Array) -> np.ndarray:
    """The inverse of `shard_batch` for one array: the rows that this process's devices hold."""
    pieces = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device, so that every process can read it."""
    return NamedSharding(mesh, P())


def of_main(array: np.ndarray) -> np.ndarray:
    """Process 0's array, in every process. All take part."""
    return array if jax.process_count() == 1 else np.asarray(multihost_utils.broadcast_one_to_all(array))


def whole(tree: Tree, mesh: Mesh) -> Tree:
    """A pytree of global arrays with every array whole on every device. All processes take part."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)
