"""What the heads of every fold say of its test clips, and the figures of all tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.labels import has_label
from mmpretrain.downstream.finetuning import CLASSIFIER, Finetuning
from mmpretrain.evaluation.task_intervals import task_intervals
from mmpretrain.files import present_folder
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.layout import fold_name


def outputs_of_fold(
    finetuning: Finetuning,
    outputs_of: Callable[[str, Path, np.ndarray], dict[str, np.ndarray]],
    variant: str,
    number: int,
) -> dict[str, np.ndarray]:
    """By task what a fold's heads say of its test clips."""
    classifier = finetuning.run.workdir / fold_name(variant, number) / CLASSIFIER
    if not on_main(lambda: present_folder(classifier).exists()):
        raise FileNotFoundError(f"{classifier} does not exist: run `mmpretrain finetune` with this recipe first")
    return outputs_of(variant, classifier, finetuning.fold(number).test)


def figures_of_tasks(finetuning: Finetuning, outputs: Sequence[dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """By TASK/METRIC its value on the test clips of each fold, their mean and deviation, and that of all clips.

    With `low` and `high`, its 95 % interval by resampling speakers, but for the kinds `frames` and `embedding`. A
    metric that a fold cannot tell is None there, and so is the mean where none can. outputs: of each fold what the
    heads say of its test clips.
    """
    rows = [finetuning.fold(number).test for number in finetuning.folds]
    of_folds = [finetuning.metrics(said, tested) for said, tested in zip(outputs, rows, strict=True)]
    together = {task.name: np.concatenate([said[task.name] for said in outputs]) for task in finetuning.config.tasks}
    pooled = finetuning.metrics(together, np.concatenate(rows))
    del pooled["loss"]
    figures = {}
    for name, value in pooled.items():
        values = [of_fold.get(name) for of_fold in of_folds]
        known = np.array([value for value in values if value is not None])
        std = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        mean = float(known.mean()) if len(known) else None
        figures[name] = {"folds": values, "mean": mean, "std": std, "pooled": value}
    for name, interval in _intervals(finetuning, together, np.concatenate(rows)).items():
        figures[name] |= interval
    return figures


def _intervals(finetuning: Finetuning, outputs: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, dict[str, float]]:
    """By TASK/METRIC "low" and "high" of what the heads say of these rows."""
    table, found = finetuning.table, {}
    for task in finetuning.config.tasks:
        labels = finetuning.labels[task.name][rows]
        known = has_label(labels)
        if not known.any():
            continue
        who = ([names[row] for row in rows[known]] for names in (table.clip_ids, table.speakers))
        of_task = task_intervals(labels[known], outputs[task.name][known], task, *who)
        found |= {f"{task.name}/{metric}": interval for metric, interval in of_task.items()}
    return found


def log_figures(variant: str, figures: Mapping[str, Mapping[str, Any]], but: str = "") -> None:
    """A line of all but the losses. but: a task whose figures are told elsewhere."""
    names = [name for name in figures if not name.endswith("/loss") and name.partition("/")[0] != but]
    if names:
        told = ", ".join(f"{name} {figures[name]['pooled']:.3f}" for name in names)
        log(f"{variant}, all test clips: {told}")
