"""Stage `pretrain`: masked prediction of one round's targets, from random weights or the previous round's."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

from mmpretrain.downstream.exposure import exposure_of_recipe
from mmpretrain.downstream.health import finish_round
from mmpretrain.encoders.folder import save_description, save_encoder
from mmpretrain.objectives.masking import picture_share
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import FRAME_RATE_HZ
from mmpretrain.run.checkpoint_encoder import DESCRIPTION
from mmpretrain.run.codebook import RoundCodebook
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, ROUND, Command, Given
from mmpretrain.run.round import Round
from mmpretrain.run.source import ENCODER
from mmpretrain.run.stage import fingerprint_of_made
from mmpretrain.run.watching import watch
from mmpretrain.train.best import BestBy
from mmpretrain.train.checkpoint import shapes
from mmpretrain.train.loop import Loop
from mmpretrain.train.step import TrainState
from mmpretrain.train.validation import validate

BEST_ENCODER = "best_encoder"


def pretrain(round_: Round) -> dict[str, Any]:
    """Pretrains a round and leaves its encoder. Returns its last validation metrics."""
    run, config, recipe = round_.run, round_.run.config, round_.pretrain_recipe()
    best_by = config.checkpoint.best_by
    if best_by and not len(round_.clips[1]):
        there = len(run.clips[1])
        without = f" with targets: none of the {there} there are has what its codebooks cluster" if there else ""
        remedy = f"use other {round_.field}.targets" if there else "raise data.validation_share"
        raise ValueError(
            f"checkpoint.best_by={best_by!r}, but {round_.title} has no validation clips{without}; {remedy}, "
            f"or set checkpoint.best_by=''"
        )

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        round_.check_start()
        _tell_exposure(round_)
        if round_.start is not None:
            round_.start.tell_other_scale(round_.clips[0], f"{round_.title}: init")
        training, trainer = round_.training(), round_.trainer
        watched = watch(
            run, round_.pretrain_name, round_.title, wall, trainer, training.batches.plan, config.model,
            round_.num_classes, functools.partial(picture_share, round_.config.masking),
        )  # fmt: skip

        def evaluate(state: TrainState) -> dict[str, float]:
            return validate(trainer, state, round_.validation_batches())

        lineage = {"fingerprint": on_main(lambda: fingerprint_of_made(folder, recipe))} | _lineage(round_)
        crop_size = round_.clips[0].crop_size(config.model.inputs.view)
        on_main(lambda: save_description(folder / DESCRIPTION, config.model, lineage=lineage, crop_size=crop_size,
                                         training_data=round_.training_data()))  # fmt: skip
        loop = Loop(
            training, evaluate, **watched, workdir=run.workdir, title=f"{round_.title}: pretraining",
            log_every=config.log_every, eval_every=config.validation_every, checkpoint=config.checkpoint,
            best_by=BestBy(f"validation/{best_by}", trainer.objective.better[best_by]) if best_by else None,
        )  # fmt: skip
        with contextlib.closing(loop.writer):
            state = loop.run()

        def leave(state: TrainState, name: str, lineage: dict[str, Any]) -> None:
            encoder = trainer.model(whole(state, run.mesh)).encoder

            def save() -> None:
                data = round_.training_data(chosen=name == BEST_ENCODER)
                save_encoder(folder / name, encoder, lineage=lineage, training_data=data, crop_size=crop_size)

            on_main(save)

        leave(state, ENCODER, lineage)
        result = _plain(evaluate(state))
        if best_by:
            like = shapes(state)
            del state  # or two would be on the devices
            state, values = loop.best(like)
            result["best"] = {"by": best_by} | _plain(values)
            chosen = f"the best {best_by} on validation, after step {values['step']}"
            leave(state, BEST_ENCODER, lineage | {"fingerprint": f"{lineage['fingerprint']}-{values['step']}",
                                                  "steps": values["step"], "chosen": chosen})  # fmt: skip
            log(
                f"{round_.title}: {chosen}: {values[f'validation/{best_by}']:.4g}; its encoder: {folder / BEST_ENCODER}"
            )
        return result

    # Which step is best decides the best encoder, and not the last one, whose fingerprint is of the rest.
    chosen = run.fields("checkpoint.best_by", "validation_every") if best_by else {}
    return run.stage(round_.pretrain_name, recipe | chosen, work)


def _tell_exposure(round_: Round) -> None:
    """Says which test clips the encoder will have seen, before the time is spent."""
    found = exposure_of_recipe(round_.run, round_.training_data())
    if found and str(found[1]) != "no":
        log(
            f"{round_.title}: of the test clips of {found[0]}, its encoder will have seen without their labels: "
            f"{found[1]}; data.exclude_folds leaves them out of pretraining"
        )


def _lineage(round_: Round) -> dict[str, Any]:
    """How the round's encoder came about, in words."""
    config, (train, _) = round_.config, round_.clips
    return {
        "round": round_.number, "steps": config.num_steps,
        "started from": _start(round_),
        "targets": " and ".join(f"{c.config.num_clusters} clusters of {_features(c)}" for c in round_.codebooks),
        "clips": len(train), "hours": round(int(train.lengths.sum()) / FRAME_RATE_HZ / 3600, 3),
        "corpora": ", ".join(Path(corpus.path).name for corpus in round_.run.config.data.corpora),
    }  # fmt: skip


def _start(round_: Round) -> str:
    if round_.config.init == "previous_round":
        return f"round {round_.number - 1}"
    return "random weights" if round_.start is None else f"the encoder {round_.start.fingerprint}"


def _features(codebook: RoundCodebook) -> str:
    relative_to = codebook.config.relative_to
    relative = f" relative to the {relative_to}" if relative_to in ("clip", "speaker") else ""
    return codebook.of_clips.title + relative if codebook.of_clips else f"layer {codebook.config.layer}"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("validation/"): value for name, value in values.items()}


def _command(given: Given) -> None:
    round_ = given.begin().round(given["round"])
    pretrain(round_)
    finish_round(round_)


COMMAND = Command(
    "pretrain",
    "the pretraining of one round",
    _command,
    options=(ROUND, PROFILE, ACCEPT_CHANGES),
    examples=("mmpretrain pretrain --round=2 --config=demo --config.rounds[1].num_steps=500",),
)
