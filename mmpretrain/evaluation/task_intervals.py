"""How far the metrics of a task may be trusted, of whatever kind its labels are: speakers are resampled.

Dims: N clips, U units (what is resampled), B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.comparison import resampled_units
from mmpretrain.evaluation.intervals import bounds, reach
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


def task_intervals(
    labels: np.ndarray, outputs: np.ndarray, task: TaskConfig, clip_ids: Sequence[str], speakers: Sequence[str]
) -> dict[str, dict[str, float]]:
    """95 % intervals of the metrics of N labelled clips by their names, {"low", "high"}; as in `comparison.intervals`.

    labels, outputs: [N, ...], as `TASK_METRICS` takes them. speakers: "" where nobody knows. There is none
    of the kinds in `WITHOUT`, of a single unit, nor of a metric that fewer than half of the resamples can tell.
    """
    unit_N, _ = resampled_units(clip_ids, speakers)
    units = int(unit_N.max(initial=0)) + 1
    if units < 2 or task.kind in WITHOUT:
        return {}
    members = [np.flatnonzero(unit_N == unit) for unit in range(units)]
    draws, metrics = generator(0, "evaluation/bootstrap", units), TASK_METRICS[task.kind].of
    resampled: dict[str, list[float]] = {}
    for drawn in draws.integers(units, size=(RESAMPLES, units)):
        rows = np.concatenate([members[unit] for unit in drawn])
        with np.errstate(divide="ignore", invalid="ignore"):  # of a resample in which all labels are the same
            of_drawn = metrics(labels[rows], outputs[rows], task)
        for name, value in of_drawn.items():
            if np.isfinite(value):
                resampled.setdefault(name, []).append(value)
    found = {}
    for name, value in metrics(labels, outputs, task).items():
        of_resamples = np.array(resampled.get(name, ()))
        if len(of_resamples) >= RESAMPLES / 2:
            lowest, highest = LIMITS.get(name, (-np.inf, np.inf))
            found[name] = bounds(value, reach(of_resamples, units), lowest=lowest, highest=highest)
    return found
