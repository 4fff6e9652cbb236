"""How the arrays of clips lie on disk: each view in files of its own, so that who needs sound alone reads no picture.

Record i of a view is that of record i of its split: 8 bytes that tell whose it is, then the array as it is in memory.
ArrayRecord has a checksum of every record. What else is known of a clip is in the dataset `clips` beside them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmpretrain.randomness import hash64
from mmpretrain.records import Clip

if TYPE_CHECKING:
    from array_record.python.array_record_module import ArrayRecordReader

VIEWS = {"audio": np.dtype(np.int16), "mouth": np.dtype(np.uint8), "face": np.dtype(np.uint8)}
TAG_BYTES = 8
# How views can be stored, and what ArrayRecord calls it. docs/performance.md has size and speed of these and others.
COMPRESSIONS = {"none": "uncompressed", "zstd": "zstd:1"}
SHARD = ".array_record-"  # in the name of a file with records


def shard_path(folder: Path, part: str, split: str, shard: int, num_shards: int) -> Path:
    """part: a view, or "clips". TFDS gives its files the same names."""
    return folder / f"{part}-{split}{SHARD}{shard:05d}-of-{num_shards:05d}"


def shard_of(name: str) -> tuple[str, int] | None:
    """(split, number) of a file that `shard_path` named; None of any other."""
    if SHARD not in name:
        return None
    before, _, place = name.rpartition(SHARD)
    return before.rpartition("-")[2], int(place.partition("-")[0])


def shard_lengths(folder: Path, split: str) -> list[int]:
    """How many records each shard of a split has, by what TFDS wrote."""
    splits = json.loads((folder / "dataset_info.json").read_text())["splits"]
    (own,) = (entry for entry in splits if entry["name"] == split)
    return [int(length) for length in own["shardLengths"]]


class ViewWriter(contextlib.ExitStack):
    """A context manager: writes the views of the clips of one shard."""

    def __init__(self, folder: Path, split: str, shard: int, num_shards: int, compression: str):
        from array_record.python.array_record_module import ArrayRecordWriter

        super().__init__()
        self._writers = {}
        for view in VIEWS:
            path = shard_path(folder, view, split, shard, num_shards)
            self._writers[view] = ArrayRecordWriter(str(path), f"group_size:1,{COMPRESSIONS[compression]}")
            self.callback(self._writers[view].close)

    def write(self, clip: Clip) -> None:
        tag = _tag(clip.clip_id)
        for view, writer in self._writers.items():
            writer.write(tag + np.ascontiguousarray(getattr(clip, view)).tobytes())


class Records:
    """The records of one part of a split, as bytes. Shards are opened at first use; threads may share it."""

    def __init__(self, folder: Path, part: str, split: str, lengths: Sequence[int]):
        self._paths = [shard_path(folder, part, split, shard, len(lengths)) for shard in range(len(lengths))]
        self._ends = np.cumsum(lengths)
        self._readers: dict[int, ArrayRecordReader] = {}

    def __getitem__(self, record: int) -> bytes:
        shard = int(np.searchsorted(self._ends, record, side="right"))
        reader = self._readers.get(shard)
        if reader is None:  # two threads may open it at once; one of the two is kept
            from array_record.python.array_record_module import ArrayRecordReader

            opened = ArrayRecordReader(
                str(self._paths[shard]), options="readahead_buffer_size:0", file_reader_buffer_size=32768
            )
            reader = self._readers.setdefault(shard, opened)
        start = int(self._ends[shard - 1]) if shard else 0
        return reader.read([record - start])[0]


def decode_view(record: bytes, view: str, clip_id: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a record, read-only. shape: one dim may be -1.

    Raises LookupError where it is of another clip, ValueError where it has another shape.
    """
    if record[:TAG_BYTES] != _tag(clip_id):
        raise LookupError("the record is of another clip")
    return np.frombuffer(record, VIEWS[view], offset=TAG_BYTES).reshape(shape)


def _tag(clip_id: str) -> bytes:
    return hash64(clip_id).to_bytes(TAG_BYTES, "little")
