"""Stage `pretrain`: masked prediction of one round's targets, from random weights or the previous round's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from mmpretrain.config import TargetsConfig, fingerprint
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.objectives import round_objective
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, ROUND, Command, Given
from mmpretrain.run.health import finish_round
from mmpretrain.run.layout import pretrain_name
from mmpretrain.run.run import Run
from mmpretrain.run.watching import watch
from mmpretrain.stages.finetune import put_encoder
from mmpretrain.stages.targets import encoder_path, open_targets
from mmpretrain.targets.labelling import CLIP_FEATURES
from mmpretrain.train.best import BestBy
from mmpretrain.train.checkpoint import shapes
from mmpretrain.train.loop import Loop
from mmpretrain.train.optimizer import make_optimizer, make_schedule
from mmpretrain.train.step import Trainer, TrainState
from mmpretrain.train.training import Training
from mmpretrain.train.validation import validate

BEST_ENCODER = "best_encoder"


def pretrain(run: Run, number: int) -> dict[str, Any]:
    """Pretrains round `number` (from 1) and leaves its encoder. Returns its last validation metrics."""
    config, round_ = run.config, run.config.rounds[number - 1]
    train, validation = run.clips_of_round(number)
    rounds = {k: v for k, v in run.recipe("rounds").items() if not _is_later(k, number)}
    recipe = run.recipe("model", "data") | rounds | {"clips": train.fingerprint + validation.fingerprint}
    recipe |= run.micro_batch_recipe(config.model)
    best_by = config.checkpoint.best_by
    if best_by and not len(validation):
        raise ValueError(
            f"checkpoint.best_by={best_by!r}, but round {number} has no validation clips; raise data.validation_share, "
            f"or set checkpoint.best_by=''"
        )

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        training = round_training(run, number)
        trainer, targets = training.trainer, _targets(run, number)
        watched = watch(
            run, pretrain_name(number), f"round {number}", wall, trainer, training.batches.plan, config.model,
            [codebook.num_clusters + round_.reference.dead_classes for codebook in round_.targets],
        )  # fmt: skip

        def evaluate(state: TrainState) -> dict[str, float]:
            clips = run.evaluation_batches(validation, config.model, batch_frames=config.data.batch_frames, **targets)
            return validate(trainer, state, clips)

        loop = Loop(
            training, evaluate, **watched, workdir=run.workdir, title=f"round {number}: pretraining",
            log_every=config.log_every, eval_every=config.validation_every, checkpoint=config.checkpoint,
            best_by=BestBy(f"validation/{best_by}", trainer.objective.better[best_by]) if best_by else None,
        )  # fmt: skip
        with contextlib.closing(loop.writer):
            state = loop.run()
        lineage = {
            "fingerprint": fingerprint(recipe), "round": number, "steps": round_.num_steps,
            "started from": {"random": "random weights", "previous_round": f"round {number - 1}"}[round_.init],
            "targets": " and ".join(f"{t.num_clusters} clusters of {_features(t)}" for t in round_.targets),
            "clips": len(train), "hours": round(int(train.lengths.sum()) / 25 / 3600, 3),
            "corpora": ", ".join(Path(corpus.path).name for corpus in config.data.corpora),
        }  # fmt: skip

        def export(state: TrainState, name: str, lineage: dict[str, Any]) -> None:
            encoder = trainer.model(whole(state, run.mesh)).encoder
            on_main(lambda: save_encoder(folder / name, encoder, lineage=lineage))

        export(state, encoder_path(run, number).name, lineage)
        result = _plain(evaluate(state))
        if best_by:
            like = shapes(state)
            del state  # or two would be on the devices
            state, values = loop.best(like)
            result["best"] = {"by": best_by} | _plain(values)
            chosen = f"the best {best_by} on validation, after step {values['step']}"
            export(state, BEST_ENCODER, lineage | {"fingerprint": f"{lineage['fingerprint']}-{values['step']}",
                                                   "steps": values["step"], "chosen": chosen})  # fmt: skip
            log(
                f"round {number}: {chosen}: {values[f'validation/{best_by}']:.4g}; its encoder: {folder / BEST_ENCODER}"
            )
        return result

    return run.stage(pretrain_name(number), recipe, work)


def round_training(run: Run, number: int) -> Training:
    """What decides every step of round `number`."""
    config, round_ = run.config, run.config.rounds[number - 1]
    train, _ = run.clips_of_round(number)
    trainer = round_trainer(run, number)
    batches = run.training_batches(
        train, config.model, round_.num_steps, batch_frames=config.data.batch_frames, **_targets(run, number)
    )
    return Training(
        pretrain_name(number), trainer, batches, round_.num_steps, config.seed + number,
        learning_rate=make_schedule(round_.optimizer, round_.num_steps),
        initialize=(lambda state: put_encoder(state, trainer, encoder_path(run, number - 1)))
        if round_.init == "previous_round" else (lambda state: state),
    )  # fmt: skip


def _targets(run: Run, number: int) -> dict[str, Any]:
    """As `make_batch` takes them."""
    per_frame = run.config.rounds[number - 1].reference.targets_per_frame
    return {"targets": open_targets(run, number), "targets_per_frame": per_frame}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("validation/"): value for name, value in values.items()}


def round_trainer(run: Run, number: int) -> Trainer:
    round_ = run.config.rounds[number - 1]
    tx = make_optimizer(round_.optimizer, round_.num_steps)
    return run.make_trainer(round_objective(run.config.model, round_), tx)


def _features(targets: TargetsConfig) -> str:
    kind = CLIP_FEATURES.get(targets.features)
    return kind.title if kind else f"layer {targets.layer}"


def _is_later(field: str, number: int) -> bool:
    return field.startswith("rounds[") and int(field.removeprefix("rounds[").split("]")[0]) >= number


def _command(given: Given) -> None:
    run, number = given.begin(), given["round"]
    pretrain(run, number)
    finish_round(run, number)


COMMAND = Command(
    "pretrain",
    "the pretraining of one round",
    _command,
    options=(ROUND, PROFILE, ACCEPT_CHANGES),
    examples=("mmpretrain pretrain --round=2 --config=configs/demo.py --config.rounds[1].num_steps=500",),
)
