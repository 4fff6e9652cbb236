"""Our k-means against scikit-learn's MiniBatchKMeans and faiss on the same frames in the same process.

Prints, for each, the time until the inertia on all frames is at most 1.005 of scikit-learn's final one, and its ratio
to scikit-learn's time; then frames labelled per second. The frames are drawn from a seed: states that last a few
frames, more of them than clusters, smoothed noise, an offset per clip, dims of falling variance.

python benchmarks/kmeans.py                                       both sizes of the documentation; long on few cores
python benchmarks/kmeans.py --frames 500000 --dim 39 --clusters 100
python benchmarks/kmeans.py --frames 40000 --dim 39 --clusters 20 --runs 1      a look, in seconds

Without faiss (`pip install 'mmpretrain-jax[bench]'` brings it) its rows are left out. scikit-learn has the parameters
of the reference: k-means++, 20 restarts, batches of 20,000, at most 100 passes, early stop after 100 batches without
gain. On accelerators the largest size, 4 M x 768 with 2,000 clusters, is measured too, without scikit-learn.
"""

from __future__ import annotations

import os

# Waiting threads sleep: on a loaded machine spinning ones would slow the baselines down.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import dataclasses
import platform
import statistics
import time

import jax
import numpy as np

from mmpretrain.config import ParallelConfig
from mmpretrain.output import at_least_1
from mmpretrain.parallel.mesh import make_mesh
from mmpretrain.randomness import part_seed, seed_key
from mmpretrain.targets import kmeans

SIZES = ((500_000, 39, 100), (200_000, 768, 500))  # frames, dims, clusters: MFCC, and a layer of a Base encoder
ACCELERATOR_SIZE = (4_000_000, 768, 2_000)
NEAR = 1.005  # of scikit-learn's inertia
CLIP_FRAMES = 100


@dataclasses.dataclass
class Outcome:
    """What one method reached: wall and processor time to its end, and to NEAR where it says when it got there."""

    inertia: float
    wall_sec: float
    cpu_sec: float
    trace: list[tuple[float, float, float]] = dataclasses.field(default_factory=list)  # wall, cpu, inertia on all

    def until(self, inertia: float) -> tuple[float, float] | None:
        """(wall, cpu) seconds until the inertia was this low; None if it never was."""
        for wall_sec, cpu_sec, reached in self.trace:
            if reached <= inertia:
                return wall_sec, cpu_sec
        return (self.wall_sec, self.cpu_sec) if self.inertia <= inertia else None


class Clock:
    def __init__(self):
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def drawn_frames(num_frames: int, dim: int, num_states: int, seed: int) -> np.ndarray:
    """float32 [N, D]: clips of `CLIP_FRAMES` frames that walk through states, the first states the most frequent."""
    rng = np.random.default_rng(seed)
    scale_D = (1 / np.sqrt(1 + 16 * np.arange(dim) / dim)).astype(np.float32)
    states_KD = rng.standard_normal((num_states, dim), np.float32)
    num_clips = -(-num_frames // CLIP_FRAMES)
    frames_CTD = np.empty((num_clips, CLIP_FRAMES, dim), np.float32)
    state_C = np.zeros(num_clips, np.int64)
    noise_CD = rng.standard_normal((num_clips, dim), np.float32)
    offset_CD = 0.4 * rng.standard_normal((num_clips, dim), np.float32)
    for t in range(CLIP_FRAMES):
        moves_C = (rng.random(num_clips) < 0.2) | (t == 0)  # a state lasts five frames on average
        state_C = np.where(moves_C, (num_states * rng.random(num_clips) ** 2).astype(np.int64), state_C)
        noise_CD = 0.8 * noise_CD + 0.6 * rng.standard_normal((num_clips, dim), np.float32)
        frames_CTD[:, t] = (states_KD[state_C] + 0.8 * noise_CD + offset_CD) * scale_D
    return frames_CTD.reshape(-1, dim)[:num_frames]


def ours(frames_ND: np.ndarray, num_clusters: int, seed: int, run: int, mesh) -> Outcome:
    clock, trace = Clock(), []

    def on_pass(num_frames: int, inertia: float) -> None:
        if num_frames == len(frames_ND):
            trace.append((*clock.read(), inertia))

    codebook = kmeans.fit(
        frames_ND,
        num_clusters,
        key=seed_key(part_seed(seed, "ours", run)),
        passes=100,
        restarts=5,
        mesh=mesh,
        on_pass=on_pass,
    )
    return Outcome(codebook.inertia, *clock.read(), trace)


def compile_(frames_ND: np.ndarray, num_clusters: int, mesh) -> None:
    """A small fit whose blocks have the shapes of the large one's."""
    clock = Clock()
    kmeans.fit(frames_ND[:200_000], num_clusters, key=seed_key(0), passes=0, restarts=1, mesh=mesh)
    print("compilation and a first small fit: {:.1f} s, {:.1f} s of processor time".format(*clock.read()), flush=True)


def scikit_learn(frames_ND: np.ndarray, num_clusters: int, seed: int, restarts: int, mesh) -> Outcome:
    from sklearn.cluster import MiniBatchKMeans

    clock = Clock()
    fitted = MiniBatchKMeans(
        num_clusters, init="k-means++", n_init=restarts, max_iter=100, batch_size=20_000, tol=0.0,
        max_no_improvement=100, reassignment_ratio=0.0, compute_labels=False, random_state=seed,
    ).fit(frames_ND)  # fmt: skip
    times = clock.read()
    return Outcome(inertia_of(frames_ND, fitted.cluster_centers_, mesh), *times)


def faiss(frames_ND: np.ndarray, num_clusters: int, seed: int, mesh) -> Outcome:
    """Its default of 25 Lloyd passes from random frames, over all frames; it tells the objective before each pass."""
    import faiss

    clock = Clock()
    fitted = faiss.Kmeans(frames_ND.shape[1], num_clusters, seed=seed, max_points_per_centroid=len(frames_ND))
    fitted.train(frames_ND)
    wall_sec, cpu_sec = clock.read()
    spent = [stats["time"] / fitted.iteration_stats[-1]["time"] for stats in fitted.iteration_stats]
    trace = [
        (share * wall_sec, share * cpu_sec, objective / len(frames_ND))
        for share, objective in zip(spent, fitted.obj, strict=True)
    ]
    return Outcome(inertia_of(frames_ND, fitted.centroids, mesh), wall_sec, cpu_sec, trace)


def inertia_of(frames_ND: np.ndarray, centroids_KD: np.ndarray, mesh) -> float:
    return kmeans.lloyd(kmeans.Blocks(frames_ND, mesh), centroids_KD.astype(np.float32), passes=0).inertia


def compare(num_frames: int, dim: int, num_clusters: int, *, runs: int, restarts: int, seed: int, mesh) -> None:
    frames_ND = drawn_frames(num_frames, dim, 2 * num_clusters, seed)
    print(f"\n{num_frames:,} x {dim}, {num_clusters} clusters, seed {seed}", flush=True)
    compile_(frames_ND, num_clusters, mesh)
    mine = [ours(frames_ND, num_clusters, seed, run, mesh) for run in range(runs)]
    ends = ", ".join(f"{outcome.wall_sec:.1f} s ({outcome.cpu_sec:.1f} s of processor time)" for outcome in mine)
    print(f"ours to its end: {ends}; now scikit-learn, which may take many times as long", flush=True)
    baseline = scikit_learn(frames_ND, num_clusters, seed, restarts, mesh)
    rows = {f"scikit-learn, {restarts} restarts": [baseline], "ours": mine}
    try:
        rows["faiss, 1 restart"] = [
            faiss(frames_ND, num_clusters, part_seed(seed, "faiss", run) % 2**31, mesh) for run in range(runs)
        ]
    except ImportError:
        print("faiss is not installed: left out")
    print(f"{'':28} {'runs':>4} {'inertia':>9} {f'to {NEAR}':>10} {'ratio':>7} {'cpu':>9} {'ratio':>7} {'to end':>9}")
    for name, outcomes in rows.items():
        report(name, outcomes, baseline)


def report(name: str, outcomes: list[Outcome], baseline: Outcome) -> None:
    inertia = statistics.median(outcome.inertia for outcome in outcomes)
    end_sec = statistics.median(outcome.wall_sec for outcome in outcomes)
    reached = [outcome.until(NEAR * baseline.inertia) for outcome in outcomes]
    line = f"{name:28} {len(outcomes):4} {inertia / baseline.inertia:9.4f}"
    if all(reached):
        wall_sec, cpu_sec = (statistics.median(times) for times in zip(*reached, strict=True))
        line += f" {wall_sec:8.1f} s {baseline.wall_sec / wall_sec:7.1f}"
        line += f" {cpu_sec:7.1f} s {baseline.cpu_sec / cpu_sec:7.1f}"
    else:
        line += f" {'not reached in ' + str(sum(r is None for r in reached)):>38}"
    print(f"{line} {end_sec:7.1f} s", flush=True)


def large(num_frames: int, dim: int, num_clusters: int, *, seed: int, mesh) -> None:
    """A size for accelerators, ours alone."""
    frames_ND = drawn_frames(num_frames, dim, 2 * num_clusters, seed)
    compile_(frames_ND, num_clusters, mesh)
    outcome = ours(frames_ND, num_clusters, seed, 0, mesh)
    passes = len(outcome.trace)
    per_pass_sec = (outcome.trace[-1][0] - outcome.trace[0][0]) / max(1, passes - 1)
    print(f"\n{num_frames:,} x {dim}, {num_clusters} clusters: {outcome.wall_sec:.1f} s, "
          f"inertia {outcome.inertia:.4f}, {passes} passes over all frames of {per_pass_sec:.2f} s")  # fmt: skip
    label_rate(frames_ND[:1_000_000], num_clusters, runs=3, mesh=mesh)


def label_rate(frames_ND: np.ndarray, num_clusters: int, *, runs: int, mesh) -> None:
    centroids_KD = frames_ND[:: len(frames_ND) // num_clusters][:num_clusters].copy()
    kmeans.assign(frames_ND, centroids_KD, mesh=mesh)
    wall, cpu = [], []
    for _ in range(runs):
        clock = Clock()
        kmeans.assign(frames_ND, centroids_KD, mesh=mesh)
        wall_sec, cpu_sec = clock.read()
        wall.append(len(frames_ND) / wall_sec)
        cpu.append(len(frames_ND) / cpu_sec)
    print(f"labelling {frames_ND.shape[1]} dims with {num_clusters} clusters: {statistics.median(wall):,.0f} frames/s, "
          f"{statistics.median(cpu):,.0f} frames per second of processor time")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=at_least_1, help="with --dim and --clusters: this size only")
    parser.add_argument("--dim", type=at_least_1)
    parser.add_argument("--clusters", type=at_least_1)
    parser.add_argument("--runs", type=at_least_1, default=3, help="of ours and faiss, for the median (default 3)")
    parser.add_argument("--sklearn-restarts", type=at_least_1, default=20, help="the reference has 20 (default)")
    parser.add_argument("--label-only", action="store_true", help="no fitting: frames labelled per second")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    size = (args.frames, args.dim, args.clusters)
    if any(size) and not all(size):
        parser.error("--frames, --dim and --clusters go together")
    mesh = make_mesh(ParallelConfig())
    device = jax.devices()[0]
    print(f"{len(jax.devices())} x {device.device_kind} ({device.platform}), {os.cpu_count()} cores of "
          f"{platform.machine()}, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}")  # fmt: skip
    for num_frames, dim, num_clusters in (size,) if all(size) else SIZES:
        if not args.label_only:
            compare(
                num_frames, dim, num_clusters,
                runs=args.runs, restarts=args.sklearn_restarts, seed=args.seed, mesh=mesh,
            )  # fmt: skip
        label_rate(drawn_frames(num_frames, dim, 2 * num_clusters, args.seed), num_clusters, runs=args.runs, mesh=mesh)
    if not any(size) and device.platform != "cpu":
        large(*ACCELERATOR_SIZE, seed=args.seed, mesh=mesh)


if __name__ == "__main__":
    main()
