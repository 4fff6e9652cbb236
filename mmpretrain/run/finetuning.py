"""Fine-tuning as the recipe wants it: the labelled clips, the folds, and the network and training of each variant."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import FinetuneConfig, ModelConfig, as_dict, flatten
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.evaluation.protocols import Fold, get_protocol
from mmpretrain.objectives.classification import Classification
from mmpretrain.records import EMOTIONS, Batch
from mmpretrain.run.forward import Forward
from mmpretrain.run.layout import PRETRAINED, SCRATCH, fold_name, folds_of, variants
from mmpretrain.run.run import Run
from mmpretrain.run.source import SourceEncoder
from mmpretrain.train.optimizer import make_optimizer, make_schedule
from mmpretrain.train.step import Trainer, TrainState
from mmpretrain.train.trainable import EVERYTHING, Group, Trainable
from mmpretrain.train.training import Training


class Finetuning:
    """What the recipe's `finetune` part stands for. Raises ValueError if there is none, or it asks for what is not.

    A variant is the pretrained encoder or the same network from random weights.
    """

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
    def protocol_title(self) -> str:
        return f"{self.protocol.name} v{self.protocol.version}"

    @property
    def folds(self) -> tuple[int, ...]:
        return folds_of(self.config)

    @property
    def variants(self) -> tuple[str, ...]:
        return variants(self.config.encoder, self.config.compare_from_scratch)

    def fold(self, number: int) -> Fold:
        return self.protocol.fold(self.table.rows, number, self.config.classes)

    @property
    def encoder(self) -> SourceEncoder:
        """The pretrained one."""
        if self.config.encoder != "last_round":
            return SourceEncoder(Path(self.config.encoder))
        if not (number := len(self.run.config.rounds)):
            raise ValueError("finetune.encoder='last_round', but this recipe has no rounds; name an encoder, or 'none'")
        return self.run.round(number).encoder

    def model(self, variant: str) -> ModelConfig:
        """The encoder's own architecture, or the recipe's, with the rates of fine-tuning."""
        base = self.encoder.config if variant == PRETRAINED else self.run.config.model
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
            initialize=(lambda state: self.encoder.put_into(state, trainer)) if variant == PRETRAINED
            else (lambda state: state),
        )  # fmt: skip

    def predictor(self, variant: str, trainer: Trainer) -> Callable[[TrainState, np.ndarray], np.ndarray]:
        """A function (state, rows of the table) -> logits float32 [rows, C], the same in every process."""
        graphdef, objective, num_classes = trainer.graphdef, trainer.objective, len(self.config.classes)

        def apply(state: TrainState, batch: Batch) -> jax.Array:
            return objective.logits(nnx.merge(graphdef, state.params, state.kept, copy=True), batch)

        forward = Forward(self.run, self.model(variant), apply, self.config.batch_frames, everywhere=True)

        def predict(state: TrainState, rows: np.ndarray) -> np.ndarray:
            logits = np.zeros((len(rows), num_classes), np.float32)
            for row, _, logits_C in forward(state, self.table.select(rows)):
                logits[row] = logits_C
            return logits

        return predict

    def recipe(self, variant: str) -> dict[str, Any]:
        """All that decides a fold's result but which fold it is: of the recipe, and of what other stages left."""
        run, model, pretrained = self.run, self.model(variant), variant == PRETRAINED
        others = ["encoder", "corpora", "folds", "compare_from_scratch", *["freeze_steps"] * (not pretrained)]
        own = run.fields("seed", "finetune", but=[f"finetune.{name}" for name in others])
        own |= run.fields("finetune.corpora[*].weight" if self.config.corpora else "data.corpora[*].weight")
        own |= run.batches_recipe(model) | flatten(as_dict(model), "model")
        return own | {"encoder": self.encoder.fingerprint if pretrained else "", "clips": self.table.fingerprint}

    def started_from(self, variant: str) -> str:
        """In words, for the fine-tuned encoder's card."""
        return "random weights" if variant == SCRATCH else f"the encoder {self.encoder.fingerprint}"


def _require(run: Run) -> FinetuneConfig:
    if run.config.finetune is None:
        raise ValueError("this recipe has no finetune part; set `finetune=FinetuneConfig(...)` in it")
    return run.config.finetune
