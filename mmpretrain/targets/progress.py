"""Labels on their way to a target store: kept in parts on disk, so that labelling goes on where it was stopped.

A part is a file of the labels of many clips. Its name holds the digest of its content and of all that the labels depend
on: a part that was cut, changed or moved here from elsewhere is known by that, thrown away, and made again.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpretrain.files import DamagedError, whole_file
from mmpretrain.observe.progress import log
from mmpretrain.targets.quality import joint_counts
from mmpretrain.targets.store import id_dtype

PART_FRAMES = 1 << 22  # a part is written when so many ids have come,
PART_SEC = 60.0  # or after so long: what a kill can cost


class Labelled(NamedTuple):
    """Cluster ids of C clips: their rows int64 [C], how many ids each has int64 [C], and the ids one after another.

    units: int32, the true unit of each id, -1 where it is not known; None: of no clip.
    """

    rows: np.ndarray
    lengths: np.ndarray
    ids: np.ndarray
    units: np.ndarray | None = None


class Merged(NamedTuple):
    """All clips in order. offsets: int64 [N + 1]; ids; unit_counts: int64 [U, K], or None where no unit is known."""

    offsets: np.ndarray
    ids: np.ndarray
    unit_counts: np.ndarray | None


class LabelProgress:
    """What has been labelled of `num_clips` clips, kept in `folder`.

    `fingerprint` names all that the labels depend on (codebook, encoder, clips and their order). Every process adds its
    own labels. What is there only process 0 finds out, for all: another process may see a shared folder later than it.
    """

    def __init__(self, folder: str | Path, fingerprint: str, *, num_clips: int, num_clusters: int):
        self._parent, self._folder = Path(folder), Path(folder) / fingerprint
        self._num_clips, self._num_clusters = num_clips, num_clusters
        self._waiting: list[Labelled] = []
        self._num_waiting, self._since_sec = 0, time.monotonic()
        self.done = np.zeros(num_clips, bool)  # which clips `find` found labelled
        self.written: list[str] = []  # names of parts, by this process

    def find(self) -> list[str]:
        """The names of the parts that are whole; the others are removed with a line in the log.

        Raises ValueError where there are labels under another fingerprint: training and validation must not be labelled
        by different codebooks.
        """
        others = {part.parent.name for part in self._parent.glob("*/part-*")} - {self._folder.name}
        if others:
            raise ValueError(
                f"{self._parent} has clips that were labelled by another codebook or recipe ({min(others)}, not "
                f"{self._folder.name}); remove {self._parent} to label all clips, training and validation, by this one"
            )
        found = []
        for part in sorted(self._folder.glob("part-*.npz")):
            try:
                self.done[self._read(part.name).rows] = True
            except DamagedError as error:
                log(f"{error}; its clips are labelled again")
                part.unlink()
            else:
                found.append(part.name)
        return found

    def add(self, labelled: Labelled) -> None:
        """Takes the labels of some more clips, and writes what has come if it is enough."""
        if not self._waiting:
            self._since_sec = time.monotonic()
        self._waiting.append(labelled)
        self._num_waiting += len(labelled.ids)
        if self._num_waiting >= PART_FRAMES or time.monotonic() - self._since_sec >= PART_SEC:
            self.flush()

    def flush(self) -> None:
        """Writes what has come, as one part that is there wholly or not at all."""
        if not self._waiting:
            return
        rows, lengths, ids = (np.concatenate(arrays) for arrays in list(zip(*self._waiting, strict=True))[:3])
        arrays = {"rows": rows.astype(np.int64), "lengths": lengths.astype(np.int64)}
        arrays["ids"] = ids.astype(id_dtype(self._num_clusters))
        if any(labelled.units is not None for labelled in self._waiting):
            units = [np.full(len(x.ids), -1) if x.units is None else x.units for x in self._waiting]
            arrays["units"] = np.concatenate(units).astype(np.int32)
        content = io.BytesIO()
        np.savez(content, **arrays)
        name = self._name(content.getbuffer())
        with whole_file(self._folder / name) as draft:
            draft.write_bytes(content.getbuffer())
        self.written.append(name)
        self._waiting, self._num_waiting = [], 0

    def merge(self, parts: Iterable[str]) -> Merged:
        """The labels of all clips. Raises KeyError for a row that is in none of the parts, DamagedError for a part."""
        parts, lengths = list(parts), np.full(self._num_clips, -1, np.int64)
        for labelled in map(self._read, parts):
            lengths[labelled.rows] = labelled.lengths
        if (lengths < 0).any():
            raise KeyError(int((lengths < 0).argmax()))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids, seen = np.empty(offsets[-1], id_dtype(self._num_clusters)), np.zeros(self._num_clips, bool)
        joint = []
        for labelled in map(self._read, parts):
            starts = np.cumsum(labelled.lengths) - labelled.lengths
            # A clip may come twice: of processes that share it, or where a batch was made again for another clip.
            new = np.repeat(~seen[labelled.rows], labelled.lengths)
            seen[labelled.rows] = True
            places = np.arange(len(labelled.ids)) + np.repeat(offsets[labelled.rows] - starts, labelled.lengths)
            ids[places[new]] = labelled.ids[new]
            if labelled.units is not None:
                joint.append(joint_counts(labelled.ids[new], labelled.units[new], self._num_clusters))
        num_units = max(map(len, joint), default=0)
        unit_counts = sum(np.pad(counts, ((0, num_units - len(counts)), (0, 0))) for counts in joint)
        return Merged(offsets, ids, unit_counts if num_units else None)

    def _read(self, name: str) -> Labelled:
        file = self._folder / name
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            raise DamagedError(f"{file} is missing") from None
        if self._name(content) != name:
            raise DamagedError(f"{file} is damaged: it is not what was written (by the digest in its name)")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return Labelled(*(arrays.get(name) for name in Labelled._fields))

    def _name(self, content: bytes | memoryview) -> str:
        digest = hashlib.blake2b(content, digest_size=16, person=b"labels")
        digest.update(self._folder.name.encode())
        return f"part-{digest.hexdigest()}.npz"


def select_ids(ids_CT: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The first `lengths[c]` of each row, one after another."""
    return ids_CT[np.arange(ids_CT.shape[1]) < lengths[:, None]]
