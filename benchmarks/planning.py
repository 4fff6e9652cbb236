"""Opening the index of a large corpus and planning its epochs, each beside the way that takes an object for each clip.

Writes the index of a corpus of so many clips, without a clip in it, and measures in a process of its own (Linux only)
how long it takes to have the clips to train and to validate on, and how much memory that takes at most, the interpreter
with NumPy included. Then the plan of an epoch, of clips of varied lengths and corpora of three weights. The baselines,
in the same run: lines of JSON that become objects; and the clips that fill up the last batch found by sorting sets. The
first is measured on a tenth of the clips and takes ten times as long for all.

python benchmarks/planning.py                      5 million clips; a few minutes
python benchmarks/planning.py --clips 100000       a look, in seconds
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmpretrain.columns import Strings, Words
from mmpretrain.config import CorpusConfig, DataConfig
from mmpretrain.data import batch_plan
from mmpretrain.data.clips import training_and_validation
from mmpretrain.index import Index, read_index, write_index
from mmpretrain.output import at_least_1
from mmpretrain.prepared import finish_corpus
from mmpretrain.randomness import part_seed
from mmpretrain.records import EMOTIONS, Schema, dataset_dir

SPEAKERS = 6_112  # of VoxCeleb2
SETTINGS = {"batch_frames": 32_000, "bucket_frames": (100, 200, 300, 400, 500), "multiple": 8}


def drawn_index(num_clips: int, seed: int) -> Index:
    """Clips as VoxCeleb2 names them, 4 to 20 s long, of 6,112 speakers; one in ten has an emotion."""
    rng = np.random.default_rng(seed)
    name = np.array([list(b"id00000/00000000000/00000")], np.uint8)
    ids, number = np.repeat(name, num_clips, 0), np.arange(num_clips)
    speaker_N = rng.integers(0, SPEAKERS, num_clips)
    for last, values in ((6, speaker_N), (18, number), (24, number)):
        for digit in range(5):
            ids[:, last - digit] += (values // 10**digit % 10).astype(np.uint8)
    hashes = rng.integers(0, 2**64, (3, num_clips), np.uint64)
    emotions = Words(rng.integers(0, 10 * len(EMOTIONS), num_clips).astype(np.uint8), ("", *EMOTIONS, *[""] * 200))
    return Index(
        Strings.unpack(ids.reshape(-1), np.arange(num_clips + 1, dtype=np.uint32) * ids.shape[1]),
        rng.integers(100, 500, num_clips, np.int32), Words.same("train", num_clips),
        Words(speaker_N.astype(np.uint16), tuple(f"id{speaker:05}" for speaker in range(SPEAKERS))),
        {name: np.ones(num_clips, bool) for name in ("audio", "video", "blendshapes")}, {"emotion": emotions}, *hashes,
    )  # fmt: skip


def write(folder: Path, num_clips: int, seed: int) -> str:
    """The corpus, and lines of JSON of a tenth of it beside. Returns its path."""
    dataset_dir(folder).mkdir(parents=True)
    index = drawn_index(num_clips, seed)
    write_index(folder, "train", index)
    finish_corpus(folder, "drawn", Schema(96, 112, labels={"emotion": "class"}), {"train": index}, 0.0)
    with open(folder / "rows.jsonl", "w") as file:
        file.writelines(json.dumps(vars(index.row(i))) + "\n" for i in range(num_clips // 10))
    return str(folder)


def opened(folder: str) -> None:
    train, validation = training_and_validation(DataConfig(corpora=(CorpusConfig(folder),)))
    assert len(train) > len(validation) > 0


def opened_as_objects(folder: str) -> None:
    """As it was: a row of Python objects for each clip, and a hash of each id to hold some out."""
    from mmpretrain.randomness import unit_hash
    from mmpretrain.records import IndexRow

    with open(Path(folder) / "rows.jsonl") as file:
        rows = [IndexRow(**json.loads(line)) for line in file]
    held_out = np.array([unit_hash("valid", row.clip_id) for row in rows]) < 0.05
    lengths = np.array([row.num_frames for row in rows], np.int32)
    train = [row for row, held in zip(rows, held_out, strict=True) if not held]
    assert len(train) < len(rows) == len(lengths)


OPENING = {"columns": opened, "objects": opened_as_objects}


def open_here(way: str, folder: str) -> None:
    """Prints seconds, and the peak of memory in MB before and after."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    started = time.perf_counter()
    OPENING[way](folder)
    print(time.perf_counter() - started, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def open_apart(way: str, folder: str) -> list[float]:
    command = [sys.executable, __file__, "--open", way, folder]
    return [float(number) for number in subprocess.check_output(command, text=True).split()]


def sorted_fillers(drawn, batch, missing, num_clips, rng) -> np.ndarray:
    """`batch_plan._fillers` as it was."""
    others = rng.permutation(np.setdiff1d(drawn, batch))[:missing]
    return np.concatenate([others, np.resize(rng.permutation(drawn), missing - len(others))])


def epoch_sec(lengths: np.ndarray, weights: np.ndarray, seed: int, fillers: Callable) -> tuple[float, float]:
    """Seconds to make the plan, and to plan its first epoch."""
    ours, batch_plan._fillers = batch_plan._fillers, fillers
    try:
        started = time.perf_counter()
        plan = batch_plan.BatchPlan(lengths, weights=weights, seed=seed, **SETTINGS)
        made = time.perf_counter()
        plan[0]
        return made - started, time.perf_counter() - made
    finally:
        batch_plan._fillers = ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=at_least_1, default=5_000_000, help="default: %(default)s")
    parser.add_argument("--runs", type=at_least_1, default=3, help="for the medians (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--open", nargs=2, metavar=("WAY", "DIR"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        open_here(*args.open)
        return
    print(f"{args.clips:,} clips; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, NumPy {np.__version__}")
    print(f"{'':34} {'median':>9} {'baseline':>9} {'ratio':>6} {'peak memory':>12} {'baseline':>9}")
    with tempfile.TemporaryDirectory() as folder:
        corpus = write(Path(folder) / "corpus", args.clips, args.seed)
        medians = {}
        for way in OPENING:
            runs = [open_apart(way, corpus) for _ in range(args.runs)]
            medians[way] = [statistics.median(column) for column in zip(*runs, strict=True)]
        (sec, _, peak), (of_tenth_sec, before, of_tenth_peak) = medians["columns"], medians["objects"]
        line("clips opened", sec, 10 * of_tenth_sec, peak, before + 10 * (of_tenth_peak - before))
        lengths = read_index(corpus, "train").num_frames
    weights = np.resize([1.0, 0.5, 2.0, 1.0], len(lengths))
    for title, weight_N in (("one corpus", np.ones(len(lengths))), ("three weights", weights)):
        ours, theirs = (
            [epoch_sec(lengths, weight_N, part_seed(args.seed, "epoch", run), fillers) for run in range(args.runs)]
            for fillers in (batch_plan._fillers, sorted_fillers)
        )
        line(f"an epoch planned, {title}", *(statistics.median(epoch for _, epoch in runs) for runs in (ours, theirs)))
        print(f"{'':4}with the plan before it: {statistics.median(map(sum, ours)):.2f} s")


def line(title: str, sec: float, baseline_sec: float, *peaks: float) -> None:
    memory = f" {peaks[0]:9.0f} MB {peaks[1]:6.0f} MB" if peaks else ""
    print(f"{title:34} {sec:7.2f} s {baseline_sec:7.2f} s {baseline_sec / sec:6.1f}{memory}", flush=True)


if __name__ == "__main__":
    main()
