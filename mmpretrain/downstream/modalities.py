"""What each modality brings: figures with some of them shown, shares of each, and the gates of gated heads."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.tested import figures_of_tasks, outputs_of_fold
from mmpretrain.downstream.trained import trained_outputs
from mmpretrain.evaluation.gates import gates_by_class
from mmpretrain.evaluation.shapley import shapley
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.observe.progress import log


def modality_table(finetuning: Finetuning, variant: str) -> dict[str, dict[str, Any]]:
    """As `figures_of_tasks`, by the modalities that are shown, joined by +: each alone first, all together last.

    A clip that has none of them is answered all the same, by what the network says of nothing.
    """
    cells = {"+".join(shown): _figures_shown(finetuning, variant, shown) for shown in some_of(finetuning.heard)}
    log(f"{variant}, by modality: " + "; ".join(f"{name} {_told(finetuning, cell)}" for name, cell in cells.items()))
    return cells


def _figures_shown(finetuning: Finetuning, variant: str, shown: Sequence[str]) -> dict[str, dict[str, Any]]:
    outputs = functools.partial(trained_outputs, finetuning, shown=shown)
    return figures_of_tasks(
        finetuning, [outputs_of_fold(finetuning, outputs, variant, fold) for fold in finetuning.folds]
    )


def modality_shares(
    finetuning: Finetuning, variant: str, cells: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, dict[str, float]]:
    """Of each task's first figure, over all test clips, what each modality brings: Shapley's shares, which add up to
    the figure with all less that with nothing shown."""
    nothing, shares = _figures_shown(finetuning, variant, ()), {}
    for task in finetuning.config.tasks:
        name = next((n for n in nothing if n.startswith(f"{task.name}/") and not n.endswith("/loss")), None)
        if name is None or any(name not in cell for cell in cells.values()):
            continue
        values = {frozenset(shown.split("+")): cell[name]["pooled"] for shown, cell in cells.items()}
        shares[name] = shapley({frozenset(): nothing[name]["pooled"], **values}, finetuning.heard)
        told = ", ".join(f"{modality} {share:+.3f}" for modality, share in shares[name].items())
        log(f"{variant}, Shapley's shares of {name}: {told}")
    return shares


def gates_of_tasks(finetuning: Finetuning, variant: str, outputs: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """By task of a gated head, over the test clips of all folds, what `gates_by_class` returns."""
    rows, found = np.concatenate([finetuning.fold(number).test for number in finetuning.folds]), {}
    modalities, extras = finetuning.modalities, finetuning.extras
    streams = ["+".join(modalities), *extras] if extras else modalities
    for task in finetuning.config.tasks:
        if f"{task.name}/gate" not in outputs[0]:
            continue
        metrics, labels = TASK_METRICS[task.kind], finetuning.labels[task.name][rows]
        classes_N = metrics.classes(labels) if metrics.chances else np.full(len(rows), -1)
        gate_NM = np.concatenate([said[f"{task.name}/gate"] for said in outputs])
        of_task = gates_by_class(gate_NM, classes_N, streams, task.classes if metrics.chances else ())
        for name, means in of_task.items():
            told = ", ".join(f"{stream} {means[stream]:.3f}" for stream in streams)
            log(f"{variant}, gate of {task.name}, {name} ({means['clips']} test clips): {told}")
        found |= {task.name: of_task} if of_task else {}
    return found


def some_of(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every choice of one or more of these, by their number."""
    return [some for size in range(1, len(names) + 1) for some in itertools.combinations(names, size)]


def _told(finetuning: Finetuning, figures: dict[str, dict[str, Any]]) -> str:
    name = next(name for name in figures if name.startswith(f"{finetuning.main.name}/") and not name.endswith("/loss"))
    return f"{name} {figures[name]['pooled']:.3f}"
