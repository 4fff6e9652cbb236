"""Whether every name in a recipe is registered: what `config/checks.py`, which knows no other room, cannot say."""

from __future__ import annotations

from mmpretrain.config import FinetuneConfig, RunConfig
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.labels import ARRAYS
from mmpretrain.evaluation.protocols import get_protocol
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.objectives import OBJECTIVES
from mmpretrain.objectives.supervised import TASK_LOSSES


def check_names(config: RunConfig) -> None:
    """Raises ValueError for a modality, objective, kind of task, metric, protocol or fold that there is not.

    config: checked by `config.checks.check`.
    """
    modalities, best_by = config.model.modalities, config.checkpoint.best_by
    if unknown := [name for name in modalities if name not in INPUTS]:
        raise ValueError(f"model.modalities={modalities}: {unknown[0]!r} is none of {', '.join(INPUTS)}")
    for i, round_ in enumerate(config.rounds):
        if round_.objective not in OBJECTIVES:
            raise ValueError(f"rounds[{i}].objective={round_.objective!r}; it must be one of {', '.join(OBJECTIVES)}")
        better = OBJECTIVES[round_.objective](config.model, round_).better
        if best_by and best_by not in better:
            raise ValueError(f"checkpoint.best_by={best_by!r}; it must be one of {', '.join(better)}, or '': none")
    if config.finetune is not None:
        _check_tasks(config.finetune)
        protocol, folds, main = get_protocol(config.finetune.protocol), config.finetune.folds, config.finetune.tasks[0]
        protocol.check_task(main.column or main.name, main.classes or None)
        if folds and max(folds) > protocol.num_folds:
            raise ValueError(
                f"finetune.folds={folds}; they must be of 1 to {protocol.num_folds}, the folds of the protocol "
                f"{protocol.name!r}, or empty: all of them"
            )


def _check_tasks(finetune: FinetuneConfig) -> None:
    kinds = {task.name: task.kind for task in finetune.tasks}
    whole = [kind for kind in TASK_METRICS if kind in ARRAYS and kind in TASK_LOSSES]
    for i, kind in enumerate(kinds.values()):
        if kind not in whole:
            raise ValueError(f"finetune.tasks[{i}].kind={kind!r}; it must be one of {', '.join(whole)}")
    task, _, metric = finetune.select_by.partition("/")
    if metric not in (better := TASK_METRICS[kinds[task]].better):
        names = ", ".join(f"{task}/{name}" for name in better)
        raise ValueError(f"finetune.select_by={finetune.select_by!r}; it must be one of {names}")
