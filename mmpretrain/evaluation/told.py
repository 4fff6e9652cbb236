"""What a head of any kind of labels said of test clips: its figures, and how far resampled speakers move them.

`comparison.Answers` is what is right and wrong alone. Dims: N clips, T frames, U units that are resampled, B resamples.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.comparison import resampled_units
from mmpretrain.evaluation.metrics import METRICS
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.randomness import generator

RESAMPLES = 400  # each computes all metrics anew; the standard error, which is read off them, is known to 4 %
# Sequences are too slow to compare so often; a clip that is drawn twice would find itself among embeddings.
WITHOUT = ("frames", "embedding")
# Between which numbers metrics lie; those of tasks that others add may be any.
SHARES, SIGNED = (*METRICS, "accuracy", "auc"), ("ccc", "pearson", "qwk")
LIMITS = dict.fromkeys(SHARES, (0.0, 1.0)) | dict.fromkeys(SIGNED, (-1.0, 1.0))
LIMITS |= dict.fromkeys(("loss", "mae", "rmse", "error"), (0.0, np.inf))
EVERYWHERE = (-np.inf, np.inf)


@dataclasses.dataclass(frozen=True)
class Told:
    """Of N labelled clips, each tested once, what is true and what was said.

    labels, outputs: [N, ...], as `TASK_METRICS` takes them. speakers: "" where nobody knows who speaks.
    """

    task: TaskConfig
    clip_ids: tuple[str, ...]
    speakers: tuple[str, ...]
    labels: np.ndarray
    outputs: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(self.clip_ids), len(self.speakers), len(self.labels), len(self.outputs)}
        if len(lengths) > 1:
            raise ValueError(f"ids, speakers, labels and outputs must be of the same clips; their numbers: {lengths}")

    @classmethod
    def joined(cls, parts: Sequence[Told]) -> Told:
        """Those of several folds, which test different clips."""
        texts = (sum((getattr(part, name) for part in parts), ()) for name in ("clip_ids", "speakers"))
        return cls(
            parts[0].task, *texts, stacked([part.labels for part in parts]), stacked([part.outputs for part in parts])
        )

    def take(self, rows: Sequence[int]) -> Told:
        """Of these clips, in this order."""
        texts = (tuple(values[row] for row in rows) for values in (self.clip_ids, self.speakers))
        return Told(self.task, *texts, self.labels[list(rows)], self.outputs[list(rows)])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.task.classes)

    @property
    def truths(self) -> list[str]:
        """What is true of each clip, in a word: its label, or a digest of several."""
        if self.labels.ndim == 1:
            return [f"{label:g}" for label in self.labels]
        known = (row[row >= 0] if row.dtype.kind == "i" else row[~np.isnan(row)] for row in self.labels)
        words = (" ".join(f"{label:g}" for label in row) for row in known)
        return [hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in words]

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """Of all clips at once."""
        return self._metrics(np.arange(len(self.clip_ids)))

    def _metrics(self, rows: np.ndarray) -> dict[str, float]:
        with np.errstate(divide="ignore", invalid="ignore"):  # of a resample in which all labels are the same
            return TASK_METRICS[self.task.kind].of(self.labels[rows], self.outputs[rows], self.task)

    @functools.cached_property
    def resampled(self) -> tuple[dict[str, float], dict[str, np.ndarray], int]:
        """`metrics`; float64 [B] of each, by resamples of the same speakers whatever was said, NaN where it cannot be
        told; and U. None is resampled of the kinds in `WITHOUT`, and of a single unit."""
        unit_N, _ = resampled_units(self.clip_ids, self.speakers)
        units = int(unit_N.max(initial=0)) + 1
        members = [np.flatnonzero(unit_N == unit) for unit in range(units)]
        times = 0 if units < 2 or self.task.kind in WITHOUT else RESAMPLES
        drawn_BU = generator(0, "evaluation/bootstrap", units).integers(units, size=(times, units))
        found = [self._metrics(np.concatenate([members[unit] for unit in drawn])) for drawn in drawn_BU]
        values_B = {name: np.array([of.get(name, np.nan) for of in found]) for name in self.metrics}
        return self.metrics, values_B, units


def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Of more clips; those of frames as long as the longest, without a label beyond their own end."""
    if parts[0].ndim == 1:
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    none = np.nan if parts[0].dtype.kind == "f" else -1
    pads = ([(0, 0), (0, longest - part.shape[1])] + [(0, 0)] * (part.ndim - 2) for part in parts)
    return np.concatenate([np.pad(part, pad, constant_values=none) for part, pad in zip(parts, pads, strict=True)])
