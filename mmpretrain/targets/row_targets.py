"""The targets in a store, clip by clip as batches ask for them. No JAX: worker processes do."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmpretrain.records import Clip


@dataclasses.dataclass(frozen=True)
class RowTargets:
    """The targets of a clip table. ids, offsets: of the store. rows: int64 [N], each clip's row there, or -1."""

    ids: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray

    def of(self, row: int, clip: Clip) -> np.ndarray | None:
        """int32 [T * targets_per_frame]: all ids of the clip of a row of the table; None: it has none."""
        of_store = int(self.rows[row])
        if of_store < 0:
            return None
        ids = self.ids[self.offsets[of_store] : self.offsets[of_store + 1]].astype(np.int32)
        return ids if len(ids) else None
