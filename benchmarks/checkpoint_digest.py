"""What the digests of a checkpoint cost: saving and restoring with them against without, in the same process.

Prints, for each, how long the training thread waits in `save`, how long until the checkpoint is whole, and how long
restoring takes, as medians and ratios. The state is of random numbers, in arrays as large as the layers of AV-HuBERT
Large. Files come from the page cache: from a disk or a network, reading takes longer and hashing adds a smaller share.

python benchmarks/checkpoint_digest.py                      768 MiB of state; about 3 GB of memory and of disk
python benchmarks/checkpoint_digest.py --mib 3900           as much as Large has with Adam; 16 GB of memory
python benchmarks/checkpoint_digest.py --mib 8 --runs 1     a look, in seconds
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import orbax.checkpoint as ocp

from mmpretrain.files import digests
from mmpretrain.output import at_least_1
from mmpretrain.train.checkpoint import Checkpointer

LAYER_MIB = 48  # of float32: 12 x 1024 x 1024


def make_state(mib: int) -> dict[str, jax.Array]:
    random, state = np.random.default_rng(0), {}
    while mib > 0:
        size = min(mib, LAYER_MIB)
        state[f"layer{len(state)}"] = jax.numpy.asarray(random.standard_normal((size, 2**18), np.float32))
        mib -= size
    return state


def without_digests() -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    of_orbax = ocp.handlers.DefaultCheckpointHandlerRegistry
    stack.enter_context(mock.patch("mmpretrain.train.checkpoint.handlers", of_orbax))
    stack.enter_context(mock.patch("mmpretrain.train.checkpoint.check_items", return_value=None))
    return stack


def measure(state: dict[str, jax.Array], folder: Path) -> tuple[float, float, float]:
    """Seconds in `save`, until it is whole, and of restoring."""
    saved = Checkpointer(folder, keep=1)
    begun = time.perf_counter()
    saved.save(1, state, {})
    returned = time.perf_counter()
    saved.wait()
    whole = time.perf_counter()
    restored, _ = saved.restore(state)
    jax.block_until_ready(restored)
    done = time.perf_counter()
    saved.close()
    return returned - begun, whole - begun, done - whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=at_least_1, default=768, help="of the state")
    parser.add_argument("--runs", type=at_least_1, default=3, help="of each, in turns")
    parser.add_argument("--folder", type=Path, help="where to save; by default a temporary folder")
    given = parser.parse_args()
    state, seconds = make_state(given.mib), {"without": [], "with": []}
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        folder = Path(place) / "checkpoints"
        for _ in range(given.runs):
            for name, found in seconds.items():
                with without_digests() if name == "without" else contextlib.nullcontext():
                    found.append(measure(state, folder))
                if name == "with":
                    files = [path for path in folder.rglob("*") if path.is_file()]
                    begun = time.perf_counter()
                    digests(folder, [path.relative_to(folder) for path in files])
                    rate = sum(path.stat().st_size for path in files) / (time.perf_counter() - begun)
                shutil.rmtree(folder)
    print(f"{given.mib} MiB of state; one thread hashes {rate / 1e9:.2f} GB/s")
    print(f"{'digests':<10}{'in save, s':>12}{'until whole, s':>16}{'restore, s':>12}")
    medians = {name: [statistics.median(part) for part in zip(*found, strict=True)] for name, found in seconds.items()}
    for name, (blocked, whole, restored) in medians.items():
        print(f"{name:<10}{blocked:>12.2f}{whole:>16.2f}{restored:>12.2f}")
    ratios = [one / other for one, other in zip(medians["with"], medians["without"], strict=True)]
    print(f"{'ratio':<10}{ratios[0]:>12.2f}{ratios[1]:>16.2f}{ratios[2]:>12.2f}")


if __name__ == "__main__":
    main()
