"""How far the metrics of a task may be trusted, of whatever kind its labels are: speakers are resampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.draws import figures_over_draws
from mmpretrain.evaluation.told import Told


def task_intervals(
    labels: np.ndarray, outputs: np.ndarray, task: TaskConfig, clip_ids: Sequence[str], speakers: Sequence[str]
) -> dict[str, dict[str, float]]:
    """95 % intervals of the metrics of N labelled clips by their names, {"low", "high"}; as in `comparison.intervals`.

    labels, outputs: [N, ...], as `TASK_METRICS` takes them. speakers: "" where nobody knows. There is none
    of the kinds in `told.WITHOUT`, of a single unit, nor of a metric that fewer than half of the resamples can tell.
    """
    figures = figures_over_draws([Told(task, tuple(clip_ids), tuple(speakers), labels, outputs)])
    return {name: {side: of[side] for side in ("low", "high")} for name, of in figures.items() if "low" in of}
