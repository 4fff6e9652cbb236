"""Inputs of clips beside those of the encoder, on no grid of time. Dims: L items, such as tokens, D numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class ClipFeatures:
    """Of each clip by its id up to `most` rows of D numbers. starts: [N + 1], where in `rows` each clip's begin."""

    def __init__(self, clip_ids: Sequence[str], starts: np.ndarray, rows: np.ndarray, most: int):
        self._number = {clip_id: number for number, clip_id in enumerate(clip_ids)}
        self._starts, self._rows, self.shape = starts, rows, (most, rows.shape[1])

    def of(self, clip_id: str) -> np.ndarray:
        """float32 [L, D]; of a clip without any, or that is not known, [0, D]."""
        number = self._number.get(clip_id)
        if number is None:
            return np.zeros((0, self.shape[1]), np.float32)
        rows = self._rows[self._starts[number] : self._starts[number + 1]]
        return rows[: self.shape[0]].astype(np.float32)
