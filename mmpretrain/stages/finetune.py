"""Stage `finetune`: the heads of the tasks, emotion say, per fold of a protocol, chosen on the validation clips."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from flax import nnx

from mmpretrain.config import fingerprint
from mmpretrain.data.exposure import TrainingData
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.encoders.weights import save_weights
from mmpretrain.files import seal, whole_folder
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, Command
from mmpretrain.run.exposure import TEST_SEEN, as_result, check_exposure, exposure_of_fold
from mmpretrain.run.finetuning import CLASSIFIER, Finetuning
from mmpretrain.run.layout import fold_name
from mmpretrain.run.run import Run
from mmpretrain.run.source import ENCODER
from mmpretrain.run.watching import watch
from mmpretrain.train.loop import Loop
from mmpretrain.train.step import TrainState


def finetune(run: Run) -> None:
    """Trains every variant on every fold."""
    finetuning = Finetuning(run)
    for variant in finetuning.variants:
        for fold in finetuning.folds:
            run.check_begun(fold_name(variant, fold), finetuning.recipe(variant))
    finetuning.check()
    for variant in finetuning.variants:
        for fold in finetuning.folds:
            _train_fold(finetuning, variant, fold)


def _train_fold(finetuning: Finetuning, variant: str, number: int) -> dict[str, Any]:
    run, config, name = finetuning.run, finetuning.config, fold_name(variant, number)
    recipe = finetuning.recipe(variant) | finetuning.reads(number)

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        check_exposure(finetuning)  # of all folds, before the first is trained
        fold, title = finetuning.fold(number), f"{variant}, fold {number}"
        training = finetuning.training(variant, number)
        trainer = training.trainer
        seen = as_result(exposure_of_fold(finetuning, variant, number))
        log(
            f"{title}: {len(fold.train)} training, {len(fold.validation)} validation, {len(fold.test)} test clips; "
            f"{TEST_SEEN}: {seen[TEST_SEEN]}"
        )
        watched = watch(run, name, title, wall, trainer, training.batches.plan, finetuning.model(variant))
        predict = finetuning.predictor(variant, trainer)

        def evaluate(state: TrainState) -> dict[str, float]:
            values = finetuning.metrics(predict(state, fold.validation), fold.validation)
            return {f"validation/{name}": value for name, value in values.items()}

        loop = Loop(
            training, evaluate, **watched, workdir=run.workdir, title=f"fine-tuning {title}",
            log_every=run.config.log_every, eval_every=config.eval_every, checkpoint=run.config.checkpoint,
            best_by=finetuning.best_by,
        )  # fmt: skip
        with contextlib.closing(loop.writer):
            state, _ = loop.best(loop.run())
        model = trainer.model(whole(state, run.mesh))
        lineage = {
            "fingerprint": fingerprint(recipe | {"fold": number}), "fine-tuned on": finetuning.told,
            "started from": finetuning.started_from(variant), "steps": int(state.step),
            "training clips": len(fold.train),
            "protocol": f"{finetuning.protocol_title}, fold {number}", TEST_SEEN: seen[TEST_SEEN],
        }  # fmt: skip
        data = finetuning.training_data(variant, number)
        on_main(lambda: _save(folder, model, lineage, data))
        return {"step": int(state.step)} | evaluate(state) | seen

    return run.stage(name, recipe, work)


def _save(folder: Path, model: nnx.Module, lineage: dict[str, Any], training_data: TrainingData) -> None:
    """The classifier, and its encoder by itself: for use, or for the targets of another round."""
    with whole_folder(folder / CLASSIFIER) as draft:
        save_weights(draft, model)
        seal(draft)
    save_encoder(folder / ENCODER, model.encoder, lineage=lineage, training_data=training_data)


COMMAND = Command(
    "finetune",
    "heads for the recipe's tasks, emotion say, on the folds of its protocol",
    lambda given: finetune(given.begin()),
    options=(PROFILE, ACCEPT_CHANGES),
    examples=("mmpretrain finetune --config=configs/demo.py --config.finetune.encoder=encoders/base_vox",),
)
