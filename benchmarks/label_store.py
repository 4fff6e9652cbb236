"""Keeping the labels of a large corpus, merging them, and opening the store, against the way before.

Before: an own file for every 16,384 frames, for which the folder is listed, int32, and a table of all clips by name.
Now: labels wait until there are 4 M of them (or a minute has passed), in 16 bits, by the row of the clip. Both ways get
random labels in the same run; "to N" is the time of one more part when there are N already. The store is opened as
training opens it: every digest is checked and every length compared. It runs on the processor alone.

python benchmarks/label_store.py                       20,000 parts of before: 328 M frames
python benchmarks/label_store.py --parts 2000          a tenth of it
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmpretrain.files import write_arrays
from mmpretrain.output import at_least_1
from mmpretrain.targets.kmeans import Codebook
from mmpretrain.targets.progress import Labelled, LabelProgress
from mmpretrain.targets.store import MAKER_FIELDS, open_store, write_store

CLIP_FRAMES, CLIPS_A_PART, NUM_CLUSTERS = 128, 128, 2000
LAST = 50  # parts of the old way that are timed


def part_ids(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, NUM_CLUSTERS, CLIPS_A_PART * CLIP_FRAMES, np.int32)


def add_before(folder: Path, table: dict[str, np.ndarray], number: int) -> None:
    ids = part_ids(number)
    names = [f"corpus/speaker{number}/clip{i}" for i in range(CLIPS_A_PART)]
    new = dict(zip(names, np.split(ids, CLIPS_A_PART), strict=True))
    taken = len(list(folder.glob("part-0-*.npz")))
    lengths = np.full(CLIPS_A_PART, CLIP_FRAMES)
    write_arrays(folder / f"part-0-{taken:05d}.npz", clip_ids=np.array(names, np.str_), lengths=lengths, ids=ids)
    table |= new


def before(folder: Path, num_parts: int) -> float:
    """Seconds a part when there are `num_parts`; those up to there are put down empty, to come to it."""
    folder.mkdir()
    for number in range(num_parts - LAST):
        (folder / f"part-0-{number:05d}.npz").touch()
    table, begin = {}, time.perf_counter()
    for number in range(num_parts - LAST, num_parts):
        add_before(folder, table, number)
    return (time.perf_counter() - begin) / LAST


def labels(num_parts: int) -> Iterator[Labelled]:
    lengths = np.full(CLIPS_A_PART, CLIP_FRAMES)
    for number in range(num_parts):
        yield Labelled(np.arange(number * CLIPS_A_PART, (number + 1) * CLIPS_A_PART), lengths, part_ids(number))


def drawing_sec(num_parts: int) -> float:
    """What making the labels takes, which is no part of keeping them."""
    begin = time.perf_counter()
    for number in range(num_parts):
        part_ids(number)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=at_least_1, default=20_000, help="files of before (default 20000)")
    parts = parser.parse_args().parts
    drawn_sec = drawing_sec(LAST) / LAST
    num_clips, num_frames = parts * CLIPS_A_PART, parts * CLIPS_A_PART * CLIP_FRAMES
    print(f"{num_clips:,} clips, {num_frames / 1e6:,.1f} M frames")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        before_sec = before(folder / "before", parts) - drawn_sec
        shutil.rmtree(folder / "before")

        progress = LabelProgress(folder / "labelling", "benchmark", num_clips=num_clips, num_clusters=NUM_CLUSTERS)
        begin = time.perf_counter()
        for labelled in labels(parts):
            progress.add(labelled)
        progress.flush()
        now_sec = (time.perf_counter() - begin) / parts - drawn_sec
        print(f"adding {CLIPS_A_PART * CLIP_FRAMES:,} frames, to {parts:,}: before {1e3 * before_sec:.2f} ms, now "
              f"{1e3 * now_sec:.3f} ms in {len(progress.written)} parts, ratio {before_sec / now_sec:.0f}")  # fmt: skip

        begin = time.perf_counter()
        LabelProgress(folder / "labelling", "benchmark", num_clips=num_clips, num_clusters=NUM_CLUSTERS).find()
        print(f"taking up again: {time.perf_counter() - begin:.2f} s")
        clip_ids = [f"corpus/speaker{i // CLIPS_A_PART}/clip{i % CLIPS_A_PART}" for i in range(num_clips)]
        begin = time.perf_counter()
        merged = progress.merge(progress.written)
        write_store(
            folder / "store", clip_ids=clip_ids, offsets=merged.offsets, ids_N=merged.ids,
            codebook=Codebook(np.ones((NUM_CLUSTERS, 39), np.float32), 1.0),
            lineage_fields=dict.fromkeys(MAKER_FIELDS, ""),
        )  # fmt: skip
        print(f"merging into a store: {time.perf_counter() - begin:.2f} s")

        lengths = np.full(num_clips, CLIP_FRAMES)
        begin = time.perf_counter()
        store = open_store(folder / "store")
        digests_sec = time.perf_counter() - begin
        store.check_lengths(lengths)
        now_sec = time.perf_counter() - begin
        begin = time.perf_counter()
        rows = {clip_id: row for row, clip_id in enumerate(store.clip_ids)}
        for clip_id, length in zip(clip_ids, lengths, strict=True):
            row = rows[clip_id]
            assert abs(int(store.offsets[row + 1] - store.offsets[row]) - length) <= 1
        np.bincount(store.ids, minlength=NUM_CLUSTERS)
        before_sec = time.perf_counter() - begin
        print(f"opening it: {now_sec:.2f} s, of which digests {digests_sec:.2f} s; once instead of three times "
              f"{before_sec:.2f} s without digests, ratio {3 * before_sec / now_sec:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
