"""Stage `finetune`: an emotion classifier per fold of a protocol, chosen on the validation clips."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain.config import FinetuneConfig, ModelConfig, as_dict, fingerprint, flatten
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.encoders.folder import load_encoder, read_config, save_encoder
from mmpretrain.encoders.weights import WEIGHTS, save_weights
from mmpretrain.evaluation.metrics import classification_metrics
from mmpretrain.evaluation.protocols import Fold, get_protocol
from mmpretrain.files import whole_folder
from mmpretrain.objectives.classification import Classification
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import replicated, shard_batch, whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import EMOTIONS, Batch
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, Command
from mmpretrain.run.layout import PRETRAINED, SCRATCH, fold_name, folds_of, variants
from mmpretrain.run.run import Run
from mmpretrain.run.watching import watch
from mmpretrain.stages.targets import encoder_path
from mmpretrain.train.best import BestBy
from mmpretrain.train.loop import Loop
from mmpretrain.train.optimizer import make_optimizer, make_schedule
from mmpretrain.train.step import Trainer, TrainState
from mmpretrain.train.trainable import EVERYTHING, Group, Trainable
from mmpretrain.train.training import Training


def fold_title(variant: str, fold: int) -> str:
    return f"{variant}, fold {fold}"


class Task:
    """What the recipe's `finetune` part stands for: labelled clips, folds, and the network for each variant."""

    def __init__(self, run: Run):
        self.run, self.config = run, _require(run)
        unknown = sorted(set(self.config.classes) - set(EMOTIONS))
        if unknown:
            raise ValueError(f"finetune.classes has {unknown}; emotions are {', '.join(EMOTIONS)}")
        self.protocol = get_protocol(self.config.protocol)
        table = open_clips(self.config.corpora or run.config.data.corpora)
        self.table: ClipTable = table.require(run.config.model.modalities)
        class_of = {name: i for i, name in enumerate(self.config.classes)}
        self.labels = np.array([class_of.get(emotion, -1) for emotion in self.table.label("emotion")], np.int32)

    @property
    def folds(self) -> tuple[int, ...]:
        return folds_of(self.config)

    @property
    def variants(self) -> tuple[str, ...]:
        return variants(self.config.encoder, self.config.compare_from_scratch)

    def fold(self, number: int) -> Fold:
        return self.protocol.fold(self.table.rows, number, self.config.classes)

    def encoder(self) -> Path:
        """The pretrained encoder's folder."""
        if self.config.encoder == "last_round":
            return encoder_path(self.run, len(self.run.config.rounds))
        return Path(self.config.encoder)

    def model(self, variant: str) -> ModelConfig:
        """The encoder's own architecture, or the recipe's, with the rates of fine-tuning."""
        base = read_config(self.encoder())[0] if variant == PRETRAINED else self.run.config.model
        rates = dict.fromkeys(("dropout", "attention_dropout", "input_dropout"), self.config.dropout)
        return dataclasses.replace(
            base, **rates, activation_dropout=0.0, layerdrop=0.0, feature_grad_scale=self.config.feature_grad_scale
        )

    def trainer(self, variant: str) -> Trainer:
        freeze = self.config.freeze_steps if variant == PRETRAINED else 0
        start = None if freeze >= self.config.num_steps else freeze
        trainable = Trainable((Group("encoder", from_step=start),)) if freeze else EVERYTHING
        tx = make_optimizer(self.config.optimizer, self.config.num_steps, trainable)
        return self.run.make_trainer(Classification(self.model(variant), self.config), tx, trainable)

    def training(self, variant: str, number: int) -> Training:
        """What decides every step of a fold."""
        config, fold, trainer = self.config, self.fold(number), self.trainer(variant)
        batches = self.run.training_batches(
            self.table.select(fold.train), self.model(variant), config.num_steps, batch_frames=config.batch_frames,
            labels={"emotion": self.labels[fold.train]}, freq_mask=config.freq_mask, freq_warp=config.freq_warp,
        )  # fmt: skip
        return Training(
            fold_name(variant, number), trainer, batches, config.num_steps, self.run.config.seed,
            learning_rate=make_schedule(config.optimizer, config.num_steps),
            initialize=(lambda state: put_encoder(state, trainer, self.encoder())) if variant == PRETRAINED
            else (lambda state: state),
        )  # fmt: skip

    def recipe(self, variant: str) -> dict[str, Any]:
        """All that decides a fold's result but which fold it is."""
        own = {k: v for k, v in self.run.recipe("finetune", "data").items()
               if not k.startswith(("finetune.folds", "finetune.compare"))}  # fmt: skip
        source = read_config(self.encoder())[1]["fingerprint"] if variant == PRETRAINED else ""
        model = flatten(as_dict(self.model(variant)), "model")
        model |= self.run.micro_batch_recipe(self.model(variant))
        return own | model | {"encoder": source, "clips": self.table.fingerprint}

    def started_from(self, variant: str) -> str:
        """In words, for the fine-tuned encoder's card."""
        if variant == SCRATCH:
            return "random weights"
        return f"the encoder {read_config(self.encoder())[1]['fingerprint']}"

    def evaluation_batches(self, rows: np.ndarray, variant: str) -> Iterator[Batch]:
        """The labelled clips `rows`; `clip_B` counts within them."""
        return self.run.evaluation_batches(
            self.table.select(rows), self.model(variant),
            batch_frames=self.config.batch_frames, labels={"emotion": self.labels[rows]},
        )  # fmt: skip


def finetune(run: Run) -> None:
    """Trains every variant on every fold."""
    task = Task(run)
    for variant in task.variants:
        for fold in task.folds:
            _train_fold(run, task, variant, fold)


def _train_fold(run: Run, task: Task, variant: str, number: int) -> dict[str, Any]:
    config, name = task.config, fold_name(variant, number)
    recipe = task.recipe(variant)

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        fold = task.fold(number)
        training, title = task.training(variant, number), fold_title(variant, number)
        log(f"{title}: {len(fold.train)} training, {len(fold.validation)} validation, {len(fold.test)} test clips")
        watched = watch(run, name, title, wall, training.trainer, training.batches.plan, task.model(variant))
        predict = predictor(training.trainer)

        def evaluate(state: TrainState) -> dict[str, float]:
            logits = predict(state, task.evaluation_batches(fold.validation, variant), len(fold.validation))
            labels = task.labels[fold.validation]
            result = classification_metrics(labels, logits.argmax(-1), config.classes)
            return {"validation/loss": _mean_nll(logits, labels)} | {
                f"validation/{metric}": getattr(result, metric) for metric in ("ua", "wa", "wf1", "macro_f1")
            }

        loop = Loop(
            training, evaluate, **watched, workdir=run.workdir, title=f"fine-tuning {title}",
            log_every=run.config.log_every, eval_every=config.eval_every, checkpoint=run.config.checkpoint,
            best_by=BestBy(f"validation/{config.select_by}", "higher"),
        )  # fmt: skip
        with contextlib.closing(loop.writer):
            state, _ = loop.best(loop.run())
        model = training.trainer.model(whole(state, run.mesh))
        lineage = {
            "fingerprint": fingerprint(recipe | {"fold": number}), "fine-tuned on": ", ".join(config.classes),
            "started from": task.started_from(variant), "steps": int(state.step), "training clips": len(fold.train),
            "protocol": f"{task.protocol.name} v{task.protocol.version}, fold {number}",
        }  # fmt: skip
        on_main(lambda: _save_classifier(folder, model, lineage))
        return {"step": int(state.step)} | evaluate(state)

    return run.stage(name, recipe, work)


def predictor(trainer: Trainer) -> Callable[[TrainState, Iterator[Batch], int], np.ndarray]:
    """A function (state, batches, num_clips) -> logits float32 [num_clips, C]."""
    graphdef, objective = trainer.graphdef, trainer.objective

    def forward(state: TrainState, batch: Batch) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, state.params, state.kept, copy=True)
        return objective.logits(model, batch), batch.clip_B

    forward = jax.jit(forward, out_shardings=replicated(trainer.mesh))

    def predict(state: TrainState, batches: Iterator[Batch], num_clips: int) -> np.ndarray:
        logits = np.zeros((num_clips, len(objective.finetune.classes)), np.float32)
        for batch in batches:
            logits_BC, clip_B = jax.device_get(forward(state, shard_batch(batch, trainer.mesh)))
            logits[clip_B[clip_B >= 0]] = logits_BC[clip_B >= 0]
        return logits

    return predict


def put_encoder(state: TrainState, trainer: Trainer, path: Path) -> TrainState:
    """The state with the exported encoder's weights in place of its own; everything else as it was."""
    model = trainer.model(state)
    source = nnx.state(load_encoder(path).module, WEIGHTS)
    target = nnx.state(model.encoder, WEIGHTS)
    placed = jax.tree.map(lambda new, old: jax.device_put(np.asarray(new), old.sharding), source, target)
    nnx.update(model.encoder, placed)
    _, params, kept = nnx.split(model, nnx.Param, ...)
    return dataclasses.replace(state, params=params, kept=kept)


def _save_classifier(folder: Path, model: nnx.Module, lineage: dict[str, Any]) -> None:
    """The classifier, and its encoder by itself: for use, or for the targets of another round."""
    with whole_folder(folder / "classifier") as draft:
        save_weights(draft, model)
    save_encoder(folder / "encoder", model.encoder, lineage=lineage)


def _mean_nll(logits: np.ndarray, labels: np.ndarray) -> float:
    log_probs = jax.nn.log_softmax(jnp.asarray(logits))
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def _require(run: Run) -> FinetuneConfig:
    if run.config.finetune is None:
        raise ValueError("this recipe has no finetune part; set `finetune=FinetuneConfig(...)` in it")
    return run.config.finetune


COMMAND = Command(
    "finetune",
    "emotion classifiers on the folds of the recipe's protocol",
    lambda given: finetune(given.begin()),
    options=(PROFILE, ACCEPT_CHANGES),
    examples=("mmpretrain finetune --config=configs/demo.py --config.finetune.encoder=encoders/base_vox",),
)
