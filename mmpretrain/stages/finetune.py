"""Stage `finetune`: the heads of the tasks, emotion say, per fold of a protocol, chosen on the validation clips."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from mmpretrain.config import FITTED_FUSIONS, FinetuneConfig, TaskConfig
from mmpretrain.config.task_checks import unread
from mmpretrain.data.exposure import TrainingData
from mmpretrain.downstream.checking import check_folds
from mmpretrain.downstream.exposure import TEST_SEEN, as_result, check_exposure, exposure_of_fold
from mmpretrain.downstream.finetuning import CLASSIFIER, FROZEN_READS, Finetuning
from mmpretrain.downstream.frozen import Frozen
from mmpretrain.downstream.late import fit_late
from mmpretrain.downstream.starting import put_head, training_of
from mmpretrain.encoders.card import STAYED
from mmpretrain.encoders.figures import add_figures, read_figures
from mmpretrain.encoders.folder import new_heads, save_description, save_encoder
from mmpretrain.encoders.weights import save_weights
from mmpretrain.files import seal, whole_folder
from mmpretrain.models.adapters import merge
from mmpretrain.models.heads import MultiTaskModel
from mmpretrain.models.task_heads import HEADS
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.checkpoint_encoder import DESCRIPTION
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, Command
from mmpretrain.run.figures import HEALTH, figures_of_choice
from mmpretrain.run.layout import PRETRAINED, fold_name
from mmpretrain.run.run import Run
from mmpretrain.run.source import ENCODER
from mmpretrain.run.stage import fingerprint_of_made
from mmpretrain.run.watching import watch
from mmpretrain.train.loop import Loop
from mmpretrain.train.step import TrainState


def finetune(run: Run) -> None:
    """Trains every variant on every fold."""
    finetuning = Finetuning.of(run)
    check_finetuning(finetuning)
    train_folds(finetuning, finetuning.variants)


def check_finetuning(finetuning: Finetuning) -> None:
    """Raises ValueError before anything is trained, where what was begun had another recipe, or a fold cannot be."""
    run = finetuning.run
    for variant in finetuning.variants:
        for fold in finetuning.folds:
            run.check_begun(fold_name(variant, fold), finetuning.recipe(variant))
    check_folds(finetuning)


def train_folds(finetuning: Finetuning, variants: Sequence[str]) -> list[dict[str, Any]]:
    """These on every fold that is not done yet; returns the results of all."""
    frozen = Frozen(finetuning) if finetuning.frozen else None
    if frozen:
        log(
            "finetune.classifier='frozen_linear': no encoder learns; what is read of finetune: "
            f"{', '.join(FROZEN_READS)}"
        )
    for task in finetuning.config.tasks:
        if reason := _stays(task, finetuning.config):
            log(f"the head of {task.name} stays in {CLASSIFIER} and does not leave with the encoder: {reason}")
    train = functools.partial(_fit_fold, finetuning, frozen) if frozen else functools.partial(_train_fold, finetuning)
    return [train(variant, fold) for variant in variants for fold in finetuning.folds]


def _fit_fold(finetuning: Finetuning, frozen: Frozen, variant: str, number: int) -> dict[str, Any]:
    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        told, fold = _announce(finetuning, variant, number), finetuning.fold(number)
        features = frozen.features(variant, np.concatenate([fold.train, fold.validation]))
        with wall.during("evaluation"):
            values = on_main(lambda: frozen.fit(features, number, folder))
        if variant == PRETRAINED:  # the untrained one is of no use to anybody
            lineage = _lineage(finetuning, variant, number, told) | {"classifier": "fitted; the encoder is as it was"}
            on_main(lambda: _save_fitted(finetuning, frozen, number, folder, lineage, values))
        return values | told

    recipe = finetuning.recipe(variant) | finetuning.reads(number)
    return finetuning.run.stage(fold_name(variant, number), recipe, work)


def _save_fitted(
    finetuning: Finetuning,
    frozen: Frozen,
    number: int,
    folder: Path,
    lineage: dict[str, Any],
    values: Mapping[str, float],
) -> None:
    """The encoder as it is, with the heads that were fitted on it."""
    config, encoder, fitted = finetuning.config, finetuning.encoder.load(), frozen.heads(folder / CLASSIFIER)
    tasks = [task for task in config.tasks if not _stays(task, config)]
    heads = new_heads(encoder.config, tasks, config.classifier)
    for task in tasks:
        put_head(heads[task.name], fitted[task.name])
    save_encoder(
        folder / ENCODER, encoder.module, lineage=lineage, training_data=finetuning.training_data(PRETRAINED, number),
        tasks=tasks, heads=heads, form=config.classifier, crop_size=encoder.crop_size,
    )  # fmt: skip
    figures = figures_of_choice(config, finetuning.run.config.seed, values)
    add_figures(folder / ENCODER, figures | _health(finetuning))


def _health(finetuning: Finetuning) -> dict[str, str]:
    """Of the rounds of the pretrained encoder, as its card has it."""
    known = read_figures(finetuning.encoder.path)
    return {name: text for name, text in known.items() if name.startswith(HEALTH)}


def _lineage(finetuning: Finetuning, variant: str, number: int, told: Mapping[str, Any]) -> dict[str, Any]:
    """How what a fold leaves comes about. told: what `_announce` returned."""
    recipe = finetuning.recipe(variant) | finetuning.reads(number) | {"fold": number}
    folder = finetuning.run.workdir / fold_name(variant, number)
    stayed = {task.name: why for task in finetuning.config.tasks if (why := _stays(task, finetuning.config))}
    return {
        "fingerprint": on_main(lambda: fingerprint_of_made(folder, recipe)), "fine-tuned on": finetuning.told,
        "started from": finetuning.started_from(variant), "training clips": len(finetuning.fold(number).train),
        "protocol": f"{finetuning.protocol_title}, fold {number}", TEST_SEEN: told[TEST_SEEN],
        **({STAYED: "; ".join(f"{name}, as {why}" for name, why in stayed.items())} if stayed else {}),
    }  # fmt: skip


def _announce(finetuning: Finetuning, variant: str, number: int) -> dict[str, Any]:
    """Says what a fold is about to learn from, and returns it as its result has it. Raises what `check_exposure` does.

    All folds are looked at before the first is trained.
    """
    check_exposure(finetuning)
    fold, seen = finetuning.fold(number), as_result(exposure_of_fold(finetuning, variant, number))
    labels = finetuning.training_labels(number)
    counts = labels[finetuning.main.name]
    of_each = ", ".join(f"{name} {count}" for name, count in counts.items()) if finetuning.main.classes else counts
    kept = f" kept by {finetuning.few_labels}" if finetuning.few_labels else ""
    log(
        f"{variant}, fold {number}: {len(fold.train)} training clips{kept} "
        f"({of_each}), {len(fold.validation)} validation, "
        f"{len(fold.test)} test clips; {TEST_SEEN}: {seen[TEST_SEEN]}"
    )
    return {"training_labels": labels} | seen


def _train_fold(finetuning: Finetuning, variant: str, number: int) -> dict[str, Any]:
    run, config, name = finetuning.run, finetuning.config, fold_name(variant, number)
    recipe = finetuning.recipe(variant) | finetuning.reads(number)

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        told = _announce(finetuning, variant, number)
        fold, title = finetuning.fold(number), f"{variant}, fold {number}"
        if fields := unread(config, finetuning.model(variant)):
            log(f"{title}: {', '.join(fields)} change{'s' * (len(fields) == 1)} nothing")
        training = training_of(finetuning, variant, number)
        trainer = training.trainer
        watched = watch(run, name, title, wall, trainer, training.batches.plan, finetuning.model(variant))
        predict = finetuning.predictor(variant)

        def evaluate(state: TrainState) -> dict[str, float]:
            values = finetuning.metrics(predict(state, fold.validation), fold.validation)
            return {f"validation/{name}": value for name, value in values.items()}

        lineage = _lineage(finetuning, variant, number, told) | {"steps": config.num_steps}
        data, network = finetuning.training_data(variant, number), finetuning.model(variant)
        crop_size = finetuning.table.crop_size(network.inputs.view)
        known = [task for task in config.tasks if not _stays(task, config)]
        form = config.head if config.fusion == "early" else config.fusion
        on_main(lambda: save_description(folder / DESCRIPTION, network, lineage=lineage, training_data=data,
                                         tasks=known, form=form, crop_size=crop_size))  # fmt: skip
        best_by = None if config.selection == "last" else finetuning.best_by
        loop = Loop(
            training, evaluate, **watched, workdir=run.workdir, title=f"fine-tuning {title}",
            log_every=run.config.log_every, eval_every=config.eval_every, checkpoint=run.config.checkpoint,
            best_by=best_by, evaluate_start=config.head == "frozen_linear",
        )  # fmt: skip
        with contextlib.closing(loop.writer):
            state, values = loop.run(), {}
            if best_by:
                state, values = loop.best(state)
        fitted: dict[str, Any] = {}
        if config.fusion in FITTED_FUSIONS:
            model = trainer.model(state)
            fitted = fit_late(finetuning, model, predict(state, fold.validation), fold.validation)
            state, values = trainer.with_model(state, model), {}
        model = trainer.model(whole(state, run.mesh))
        final = lineage | {"steps": int(state.step)}
        values = {name: value for name, value in values.items() if name != "step"} or evaluate(state)
        figures = figures_of_choice(config, run.config.seed, values)
        if variant == PRETRAINED:
            figures |= on_main(lambda: _health(finetuning))
        on_main(lambda: _save(folder, model, known, form, final, data, crop_size))
        on_main(lambda: add_figures(folder / ENCODER, figures))
        return {"step": int(state.step)} | values | fitted | told

    return run.stage(name, recipe, work)


def _save(
    folder: Path,
    model: MultiTaskModel,
    tasks: Sequence[TaskConfig],
    form: str,
    lineage: dict[str, Any],
    training_data: TrainingData,
    crop_size: int,
) -> None:
    """The classifier, and its encoder with the heads of these tasks: for use, or for the targets of another round."""
    with whole_folder(folder / CLASSIFIER) as draft:
        save_weights(draft, model)
        seal(draft)
    merge(model.encoder.transformer)
    heads = nnx.Dict({task.name: model.heads[task.name] for task in tasks})
    save_encoder(
        folder / ENCODER, model.encoder, lineage=lineage, training_data=training_data, tasks=tasks, heads=heads,
        form=form, crop_size=crop_size,
    )  # fmt: skip


def _stays(task: TaskConfig, config: FinetuneConfig) -> str:
    """Why the head of a task cannot leave with the encoder; "": it does."""
    if task.kind not in HEADS:
        return f"its kind, {task.kind!r}, is not among those that leave"
    if config.classifier == "frozen_linear" and task.kind != "class":
        return f"of finetune.classifier='frozen_linear' regressions of classes leave, and it is of kind {task.kind!r}"
    if config.text is not None:
        return "it hears a text (finetune.text)"
    if config.tracks:
        return f"it hears tracks beside the encoder (finetune.tracks={config.tracks!r})"
    return "it is there for the encoder to unlearn its task (reversal)" if task.reversal else ""


COMMAND = Command(
    "finetune",
    "heads for the recipe's tasks, emotion say, on the folds of its protocol",
    lambda given: finetune(given.begin()),
    options=(PROFILE, ACCEPT_CHANGES),
    examples=("mmpretrain finetune --config=demo --config.finetune.encoder=encoders/base_vox",),
)
