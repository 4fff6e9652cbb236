"""Peak memory of fitting and of labelling at two corpus sizes, one ten times the other: it should not grow.

Fitting reads a memory-mapped sample that may not stay on the device; labelling takes generated features clip by clip
through progress on disk into a target store. Each measurement is a process of its own (Linux only). Pages of the sample
that the system keeps in its file cache are given back under pressure and not counted.

python benchmarks/label_memory.py
python benchmarks/label_memory.py --frames 400000 --dim 768       larger: 1.2 and 12 GB of features
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from mmpretrain.output import at_least_1
from mmpretrain.targets import kmeans
from mmpretrain.targets.progress import Labelled, LabelProgress
from mmpretrain.targets.store import MAKER_FIELDS, write_store

CLIP_FRAMES = 250
NUM_CLUSTERS = 32
RESIDENT_BYTES = 32 << 20  # a device so small that both samples must stream


def clips(num_frames: int, dim: int) -> Iterator[tuple[int, np.ndarray]]:
    for row in range(num_frames // CLIP_FRAMES):
        yield row, np.random.default_rng(row).standard_normal((CLIP_FRAMES, dim), np.float32)


def write_sample(file: Path, num_frames: int, dim: int) -> None:
    sample_ND = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(num_frames, dim))
    for row, features_TD in clips(num_frames, dim):
        sample_ND[row * CLIP_FRAMES : (row + 1) * CLIP_FRAMES] = features_TD


def fit_sample(file: Path) -> None:
    kmeans.RESIDENT_BYTES = RESIDENT_BYTES
    sample_ND = np.load(file, mmap_mode="r", allow_pickle=False)
    kmeans.fit(sample_ND, NUM_CLUSTERS, key=jax.random.key(0), passes=2, restarts=2)


def label_corpus(folder: Path, num_frames: int, dim: int) -> None:
    centroids_KD = np.random.default_rng(1).standard_normal((NUM_CLUSTERS, dim)).astype(np.float32)
    num_clips = num_frames // CLIP_FRAMES
    progress = LabelProgress(folder / "labelling", "benchmark", num_clips=num_clips, num_clusters=NUM_CLUSTERS)
    for row, features_TD in clips(num_frames, dim):
        progress.add(Labelled(np.array([row]), np.array([CLIP_FRAMES]), kmeans.assign(features_TD, centroids_KD)))
    progress.flush()
    merged = progress.merge(progress.written)
    write_store(
        folder / "store", clip_ids=[f"clip{row}" for row in range(num_clips)], offsets=merged.offsets, ids_N=merged.ids,
        codebook=kmeans.Codebook(centroids_KD, 0.0), lineage_fields=dict.fromkeys(MAKER_FIELDS, ""),
    )  # fmt: skip


def peak_mib(work: Callable[[], None]) -> float:
    """The most memory of this process's own while `work` runs, as seen every 10 ms."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            peak = max(peak, int(fields["RssAnon"].split()[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=at_least_1, default=100_000, help="of the smaller corpus (default 100000)")
    parser.add_argument("--dim", type=at_least_1, default=256, help="of the features (default 256)")
    parser.add_argument("--only", choices=("fit", "label"), help=argparse.SUPPRESS)  # one measurement, in this process
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only == "fit":
        print(peak_mib(functools.partial(fit_sample, args.folder / "sample.npy")))
        return
    if args.only == "label":
        print(peak_mib(functools.partial(label_corpus, args.folder, args.frames, args.dim)))
        return
    print(f"{'':8} {'frames':>12} {'features':>12} {'peak memory':>12}")
    for work in ("fit", "label"):
        for num_frames in (args.frames, 10 * args.frames):
            with tempfile.TemporaryDirectory() as folder:
                if work == "fit":
                    write_sample(Path(folder) / "sample.npy", num_frames, args.dim)
                own = [sys.executable, __file__, "--only", work, "--folder", folder]
                size = ["--frames", str(num_frames), "--dim", str(args.dim)]
                done = subprocess.run([*own, *size], stdout=subprocess.PIPE, text=True, check=True)
            features_mib = num_frames * args.dim * 4 / 2**20
            print(f"{work:8} {num_frames:12,} {features_mib:8.0f} MiB {float(done.stdout):8.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
