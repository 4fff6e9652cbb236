"""Fits and labels on eight virtual CPU devices, on several meshes, and writes what came out.

Run by test_kmeans_meshes.py in its own process, since the number of devices is fixed when JAX starts:
python -m tests.sharding.one_codebook OUTPUT.npz
"""

import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 8)

import numpy as np  # noqa: E402

from mmpretrain.config import ParallelConfig  # noqa: E402
from mmpretrain.parallel.mesh import make_mesh  # noqa: E402
from mmpretrain.targets import kmeans  # noqa: E402

MESHES = {"one": (1, 1, 1), "data": (8, 1, 1), "mixed": (2, 2, 2), "tensor": (1, 1, 8)}


def main(output: str) -> None:
    # Small blocks and batches, so that every mesh makes all kinds of passes over several blocks.
    kmeans.TILE_FRAMES, kmeans.TILES, kmeans.START_FRAMES, kmeans.START_FRAMES_PER_CLUSTER = 16, 2, 300, 1
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((24, 6))
    frames = (centres[rng.integers(0, 24, 2500)] + rng.standard_normal((2500, 6)) + 100).astype(np.float32)
    arrays, report = {"frames": frames}, {}
    for name, shape in MESHES.items():
        mesh = make_mesh(ParallelConfig(*shape), jax.devices()[: int(np.prod(shape))])
        passes = []
        codebook = kmeans.fit(
            frames, 16, key=jax.random.key(3), passes=40, restarts=2, mesh=mesh,
            on_pass=lambda num_frames, inertia, passes=passes: passes.append(num_frames),
        )  # fmt: skip
        arrays[f"{name} centroids"] = codebook.centroids
        arrays[f"{name} ids"] = kmeans.assign(frames, codebook.centroids, mesh=mesh)
        blocks = kmeans.Blocks(frames, mesh)
        # More clusters than frames near them: some are empty, and move.
        far = np.concatenate([codebook.centroids, codebook.centroids + 300])
        arrays[f"{name} reseeded"] = kmeans.lloyd(blocks, far, passes=1).centroids
        block = next(iter(blocks))[0]
        state = kmeans._zeros(16, 6, mesh=mesh)
        report[name] = {
            "inertia": codebook.inertia,
            "batches": sorted(set(passes)),
            "block": [block.shape, block.addressable_shards[0].data.shape],
            "sums": [state[0].shape, state[0].addressable_shards[0].data.shape],
        }
    np.savez(output, **arrays)
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
