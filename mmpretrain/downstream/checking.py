"""What the clips of a fine-tuning's folds cannot show, said before anything is trained or tested."""

from __future__ import annotations

from mmpretrain.config import FITTED_FUSIONS
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.labels import has_label, no_classes, why_not_measured
from mmpretrain.doubles import pairs, told
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.observe.progress import log


def check_folds(finetuning: Finetuning) -> None:
    """Looks at every fold before anything is trained or tested, and logs what its clips cannot show.

    Raises what `Finetuning.fold` raises, and ValueError where fusion cannot be fitted on the validation clips.
    """
    for number in finetuning.folds:
        fold = finetuning.fold(number)
        _check_fitted(finetuning, number)
        parts = {"training": fold.train, "validation": fold.validation, "test": fold.test}
        if doubles := pairs(finetuning.table.index, fold.validation, fold.train):
            log(
                f"fold {number}: {len(doubles)} of the {len(fold.validation)} validation clips are in its training "
                f"part as well, under another id, so that it is chosen by what it has seen: "
                f"{told(finetuning.table.index, doubles)}"
            )
        for task in finetuning.config.tasks:
            for part in ("validation", "test"):
                if why := why_not_measured(finetuning.labels[task.name][parts[part]], task):
                    log(f"fold {number}: the {part} part {why}, of which its {task.name} figures tell nothing")
        for modality in finetuning.modalities:
            has = finetuning.table.has(INPUTS[modality].needs)
            if without := [part for part, rows in parts.items() if not has[rows].any()]:
                log(f"fold {number}: none of the {' and '.join(without)} clips has {modality}")
    if finetuning.names_encoder:
        finetuning.encoder.tell_other_scale(finetuning.table, "finetune.encoder")
    if left_out := len(finetuning.left_out):
        log(f"{left_out} clips are left out: they have no {' or '.join(finetuning.heard)}")
    if lacking := lacks(finetuning):
        log(f"{finetuning.protocol_title}: {lacking}, so that figures do not compare with published ones")
    if finetuning.config.selection == "test-best":
        log("finetune.selection='test-best': models are chosen on the test clips, so that every figure is too good")
    if finetuning.of_classes and finetuning.table.label_kinds.get(finetuning.main_column) in ("class", "value"):
        others, count = no_classes(finetuning.table.label(finetuning.main_column), finetuning.main)
        if count:
            log(
                f"{count} clips are left out, labelled {', '.join(others[:8])}: no class of task {finetuning.main.name}"
            )


def _check_fitted(finetuning: Finetuning, number: int) -> None:
    fusion, rows = finetuning.config.fusion, finetuning.fold(number).validation
    for task in finetuning.config.tasks if fusion in FITTED_FUSIONS else ():
        labels = finetuning.labels[task.name][rows]
        why = why_not_measured(labels, task)
        if why and (fusion == "late_stacked" or not has_label(labels).any()):
            raise ValueError(
                f"finetune.fusion={fusion!r} is fitted on validation clips, but the validation part of fold {number} "
                f"of {finetuning.protocol_title} {why} (task {task.name}); use late_mean, or label more clips"
            )


def require_classes(finetuning: Finetuning, command: str) -> None:
    """Raises ValueError where the first task's labels are no classes that exclude one another, as `command` needs."""
    if not finetuning.of_classes:
        raise ValueError(
            f"finetune.tasks[0].kind={finetuning.main.kind!r}: `{command}` puts answers together that are right or "
            f"wrong; put a task of one class a clip first ({finetuning.main.name} may come after it), or use "
            "`mmpretrain run`"
        )


def lacks(*recipes: Finetuning) -> str:
    """What of the protocol's corpus is not there to be tested in the folds of these, in words; "" if nothing."""
    return "; ".join(filter(None, map(_lacks, recipes)))


def _lacks(finetuning: Finetuning) -> str:
    folds = {number: finetuning.fold(number) for number in finetuning.folds}
    return finetuning.protocol.lacks(finetuning.table.index, folds, len(finetuning.main.classes))
