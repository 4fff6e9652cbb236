"""Labels on their way to a target store: kept in parts on disk, so that labelling goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpretrain.targets.parts import Parts
from mmpretrain.targets.quality import joint_counts
from mmpretrain.targets.store import id_dtype

PART_FRAMES = 1 << 22  # a part is written when so many ids have come, or after `parts.PART_SEC`


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


class LabelProgress(Parts):
    """What has been labelled of `num_clips` clips.

    `fingerprint` names all that the labels depend on (codebook, encoder, clips and their order).
    """

    def __init__(self, folder: str | Path, fingerprint: str, *, num_clips: int, num_clusters: int):
        super().__init__(folder, fingerprint, num_clips=num_clips, kind="labels")
        self._num_clusters = num_clusters
        self._waiting: list[Labelled] = []
        self._num_waiting = 0

    def find(self) -> list[str]:
        """As of `Parts`.

        Raises ValueError where there are labels under another fingerprint: training and validation must not be labelled
        by different codebooks.
        """
        parent, own = self.folder.parent, self.folder.name
        others = {part.parent.name for part in parent.glob("*/part-*")} - {own}
        if others:
            raise ValueError(
                f"{parent} has clips that were labelled by another codebook or recipe ({min(others)}, not {own}); "
                f"remove {parent} to label all clips, training and validation, by this one"
            )
        return super().find()

    def add(self, labelled: Labelled) -> None:
        """Takes the labels of some more clips, and writes what has come if it is enough."""
        self._waiting.append(labelled)
        self._num_waiting += len(labelled.ids)
        if self.due() or self._num_waiting >= PART_FRAMES:
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
        self.write(**arrays)
        self._waiting, self._num_waiting = [], 0

    def merge(self, parts: Iterable[str]) -> Merged:
        """The labels of all clips. Raises KeyError for a row that is in none of the parts, DamagedError for a part."""
        parts, lengths = list(parts), np.full(self.num_clips, -1, np.int64)
        for labelled in map(self._labelled, parts):
            lengths[labelled.rows] = labelled.lengths
        if (lengths < 0).any():
            raise KeyError(int((lengths < 0).argmax()))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids, seen = np.empty(offsets[-1], id_dtype(self._num_clusters)), np.zeros(self.num_clips, bool)
        joint = []
        for labelled in map(self._labelled, parts):
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

    def _labelled(self, name: str) -> Labelled:
        arrays = self.read(name)
        return Labelled(*(arrays.get(field) for field in Labelled._fields))


def select_ids(ids_CT: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The first `lengths[c]` of each row, one after another."""
    return ids_CT[np.arange(ids_CT.shape[1]) < lengths[:, None]]
