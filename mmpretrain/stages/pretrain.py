"""Stage `pretrain`: masked prediction of one round's targets, from random weights or the previous round's."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmpretrain.config import fingerprint
from mmpretrain.data.records import FRAME_RATE_HZ
from mmpretrain.export.encoder import save_encoder
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import shard_batch, whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.stages.context import Run
from mmpretrain.stages.finetune import put_encoder
from mmpretrain.stages.layout import pretrain_name
from mmpretrain.stages.targets import encoder_path, open_targets
from mmpretrain.stages.watching import watch
from mmpretrain.targets.features import CLIP_FEATURES
from mmpretrain.train.loop import Loop
from mmpretrain.train.optimizer import make_optimizer, make_schedule
from mmpretrain.train.step import Trainer, TrainState, make_trainer


def pretrain(run: Run, number: int) -> dict[str, Any]:
    """Pretrains round `number` (from 1) and leaves its encoder. Returns its last validation metrics."""
    config, round_ = run.config, run.config.rounds[number - 1]
    train, valid = run.clips_of_round(number)
    rounds = {k: v for k, v in run.recipe("rounds").items() if not _is_later(k, number)}
    recipe = run.recipe("model", "data") | rounds | {"clips": train.fingerprint + valid.fingerprint}

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        targets = {"targets": open_targets(run, number), "labels_per_frame": round_.label_rate_hz // FRAME_RATE_HZ}
        trainer = round_trainer(run, number)
        plan, batches = run.training_batches(
            train, config.model, round_.num_steps, batch_frames=config.data.batch_frames, **targets
        )
        watched = watch(
            run, pretrain_name(number), f"round {number}", wall, trainer, plan, config.model,
            [codebook.num_clusters + round_.dead_classes for codebook in round_.targets],
        )  # fmt: skip

        def evaluate(state: TrainState) -> dict[str, float]:
            clips = run.evaluation_batches(valid, config.model, batch_frames=config.data.batch_frames, **targets)
            return validate(trainer, state, clips)

        loop = Loop(
            trainer, batches, evaluate, **watched, folder=folder, title=f"round {number}: pretraining",
            seed=config.seed + number, num_steps=round_.num_steps, log_every=config.log_every,
            eval_every=config.valid_every, checkpoint=config.checkpoint,
            learning_rate=make_schedule(round_.optimizer, round_.num_steps),
            initialize=(lambda state: put_encoder(state, trainer, encoder_path(run, number - 1)))
            if round_.init == "previous_round" else (lambda state: state),
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
        encoder = trainer.model(whole(state, run.mesh)).encoder
        on_main(lambda: save_encoder(encoder_path(run, number), encoder, lineage=lineage))
        return {name.removeprefix("valid/"): value for name, value in evaluate(state).items()}

    return run.stage(pretrain_name(number), recipe, work)


def round_trainer(run: Run, number: int) -> Trainer:
    round_ = run.config.rounds[number - 1]
    tx = make_optimizer(round_.optimizer, round_.num_steps)
    return make_trainer(MaskedPrediction(run.config.model, round_), tx, run.mesh)


def validate(trainer: Trainer, state: TrainState, batches) -> dict[str, float]:
    """Means over all clips of `batches`, as `valid/NAME`; empty if there is none."""
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for batch in batches:
        sums = jax.device_get(trainer.evaluate(state, shard_batch(batch, trainer.mesh)))
        for name, pair in {"loss": (sums.loss, sums.weight), **sums.metrics}.items():
            totals[name] += pair
    return {f"valid/{name}": float(total / max(count, 1.0)) for name, (total, count) in totals.items()}


def _features(targets) -> str:
    kind = CLIP_FEATURES.get(targets.features)
    return kind.title if kind else f"layer {targets.layer}"


def _is_later(field: str, number: int) -> bool:
    return field.startswith("rounds[") and int(field.removeprefix("rounds[").split("]")[0]) >= number
