"""Fine-tuning as the recipe wants it: the network and the training of each variant, and what they hear."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import ModelConfig, as_dict, fingerprint, flatten
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.extras import Extra, track_of
from mmpretrain.data.labels import OF_FRAMES, class_weights, sampling
from mmpretrain.downstream.labelled import LabelledFolds
from mmpretrain.downstream.learning import unread_from_scratch, what_learns
from mmpretrain.downstream.texts import text_features, text_recipe
from mmpretrain.models.sharing import share_out
from mmpretrain.models.streams import Beside
from mmpretrain.objectives.supervised import Supervised, weights_of
from mmpretrain.parallel.mesh import FrameShares
from mmpretrain.records import Batch
from mmpretrain.run.folds import OF_FOLD, config_of_fold
from mmpretrain.run.forward import Forward, LayerStatistics
from mmpretrain.run.layout import PRETRAINED, SCRATCH, fold_name, variants
from mmpretrain.run.run import Run
from mmpretrain.run.source import SourceEncoder
from mmpretrain.train.optimizer import make_optimizer, make_schedule
from mmpretrain.train.step import Trainer, TrainState
from mmpretrain.train.training import Training

CLASSIFIER = "classifier"  # of a fold: the encoder and all heads, or, on a frozen one, the heads

# Of the recipe's `finetune` part, what decides a regression on a frozen encoder; and what of a model does not.
FROZEN_READS = (
    "tasks",
    "protocol",
    "label_share",
    "labels_per_class",
    "label_draw",
    "classifier",
    "select_by",
    "selection",
)
# What the trained heads of a fold do not depend on.
UNREAD = (
    "encoder", "corpora", "folds", "compare_from_scratch", "accept_seen_labels", "modality_table", "text.encoder",
)  # fmt: skip
# Nor do the programs that train them: which clips have labels, and which step is chosen by what.
OF_LABELS = ("protocol", "label_share", "labels_per_class", "label_draw", "classifier", "select_by", "selection")
RATES = (
    "model.dropout", "model.attention_dropout", "model.input_dropout", "model.activation_dropout", "model.layerdrop",
    "model.feature_grad_scale",
)  # fmt: skip


class Finetuning(LabelledFolds):
    """What the recipe's `finetune` part stands for. Raises ValueError if there is none, or it asks for what is not.

    A variant is the pretrained encoder or the same network from random weights. like: one that differs in its seed,
    its folder, its folds, its encoder's weights, its labels that are kept back or what its heads are, and nothing else:
    its table, what was measured of clips and its compiled programs, where they are of the same heads, serve here as
    well. texts: clips that have a text alone are among them, whatever the recipe says.
    """

    def __init__(self, run: Run, like: Finetuning | None = None, *, texts: bool = False):
        self._like = like
        super().__init__(run, (like.table, like.left_out) if like else None, texts=texts)
        if like:
            run.unreadable = like.run.unreadable  # in which the clips of the table are counted
        self._trainers: dict[str, Trainer] = like._trainers if like else {}  # by `_program`
        self._forwards: dict[str, list[Forward]] = like._forwards if like else {}
        # of each encoder that was looked through, by row what its layers say (`downstream.frozen`)
        self.layers: dict[str, dict[int, np.ndarray]] = like.layers if like else {}
        self.looks: dict[str, LayerStatistics] = like.looks if like else {}  # by network, whatever the weights
        # of clips, by network and baseline (`downstream.baselines`)
        self.statistics: dict[str, dict[str, np.ndarray]] = like.statistics if like else {}

    @classmethod
    def of(cls, run: Run) -> Finetuning:
        """That of a run, one object however often it is asked for: so each stage finds what an earlier one compiled and
        looked at."""
        if cls not in run.parts:
            run.parts[cls] = cls(run)
        return run.parts[cls]

    def runs_of_folds(self) -> dict[int, Run]:
        """By fold a run of it alone (`config_of_fold`), whose `Finetuning.of` is `like` this one."""
        config = self.run.config
        runs = {number: self.run.with_config(config_of_fold(config, number)) for number in self.folds}
        for of_fold in runs.values():
            of_fold.parts[Finetuning] = Finetuning(of_fold, like=self)
        return runs

    @property
    def variants(self) -> tuple[str, ...]:
        return variants(self.config.encoder, self.config.compare_from_scratch)

    @property
    def frozen(self) -> bool:
        """Whether nothing is trained but a regression on what the encoder says (`downstream.frozen`)."""
        return self.config.classifier == "frozen_linear"

    @property
    def names_encoder(self) -> bool:
        """Whether the recipe names the folder of an encoder, which need not be of its own `model`.

        What is like another, a point of a curve, may have the path of the encoder that the other's last round left.
        Of a path with `{fold}` each fold's own run has an encoder.
        """
        asked = [each.config.encoder for each in (self, self._like) if each is not None]
        return not {"none", "last_round"} & set(asked) and OF_FOLD not in asked[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of the encoder that the recipe names, of which `model` may have more; else its own.

        Raises ValueError where the encoder has others.
        """
        if not self.names_encoder:
            return self.run.config.model.modalities
        self.encoder.check_hears(self.run.config.model.modalities, "finetune.encoder")
        return tuple(self.encoder.config.modalities)

    @property
    def encoder(self) -> SourceEncoder:
        """The pretrained one."""
        return self.run.encoder_named(self.config.encoder, "finetune.encoder", "name an encoder, or 'none'")

    @functools.cached_property
    def encoder_data(self) -> TrainingData:
        """What the pretrained encoder and its ancestors have seen."""
        return self.encoder.training_data

    def training_data(self, variant: str, number: int) -> TrainingData:
        """What the fine-tuned encoder of a fold and its ancestors have seen."""
        own = self.own_data(number, "train", "validation")
        return self.encoder_data | own if variant == PRETRAINED else own

    def model(self, variant: str) -> ModelConfig:
        """The encoder's own architecture, from random weights too, with the rates of fine-tuning.

        Without an encoder it is the recipe's.
        """
        base = self.encoder.config if variant == PRETRAINED or self.names_encoder else self.run.config.model
        rates = dict.fromkeys(("dropout", "attention_dropout", "input_dropout"), self.config.dropout)
        return dataclasses.replace(
            base, **rates, activation_dropout=0.0, layerdrop=0.0, feature_grad_scale=self.config.feature_grad_scale
        )

    def trainer(self, variant: str) -> Trainer:
        """One for all folds, so that they run one program."""
        if (program := self._program(variant)) not in self._trainers:
            self._trainers[program] = self._make_trainer(variant)
        return self._trainers[program]

    def _program(self, variant: str) -> str:
        """Tells a network with its heads and its steps from others that share what is compiled."""
        unread = [f"finetune.{name}" for name in (*UNREAD, *OF_LABELS)]
        return f"{variant} {fingerprint(self.run.fields('finetune', but=unread) | as_dict(self.model(variant)))}"

    def _make_trainer(self, variant: str) -> Trainer:
        config, pretrained = self.config, variant == PRETRAINED
        trainable = what_learns(config, self.model(variant).num_layers, pretrained=pretrained)
        tx = make_optimizer(self.config.optimizer, self.config.num_steps, trainable)
        rank = config.lora_rank if pretrained else 0
        return self.run.make_trainer(Supervised(self.model(variant), self.config, rank, self._beside), tx, trainable)

    def training(self, variant: str, number: int) -> Training:
        """What decides every step of a fold."""
        config, fold, trainer = self.config, self.fold(number), self.trainer(variant)
        name = fold_name(variant, number)
        labels = {name: of_table[fold.train] for name, of_table in self.labels.items()}
        for task in config.tasks:
            if task.class_weights == "inverse":
                labels[weights_of(task)] = class_weights(labels[task.name], task)
        clips = self.table.select(fold.train)
        sampled = sampling(config.sampling, clips, self.classes_N[fold.train], self.main)
        batches = self.run.training_batches(
            name, clips, self.model(variant), config.num_steps, batch_frames=config.batch_frames, extras=self.extras,
            labels=labels, of_frames=self.of_frames, freq_mask=config.freq_mask, freq_warp=config.freq_warp,
            field="finetune.batch_frames", **sampled,
        )  # fmt: skip
        return Training(
            name, trainer, batches, config.num_steps, self.run.stage_seed(name),
            learning_rate=make_schedule(config.optimizer, config.num_steps),
            initialize=(lambda state: self.encoder.put_into(state, trainer)) if variant == PRETRAINED
            else (lambda state: state),
        )  # fmt: skip

    @functools.cached_property
    def extras(self) -> dict[str, Extra]:
        """What batches have beside the encoder's modalities: the features of texts and the tracks that are heard."""
        if self._like is not None:
            return self._like.extras
        tracks: dict[str, Extra] = {name: track_of(self.table, name) for name in self.config.tracks}
        text = self.config.text
        return ({} if text is None else {"text": text_features(self.run, text, self.table)}) | tracks

    @property
    def _beside(self) -> tuple[Beside, ...]:
        return tuple(Beside(name, extra.dim, extra.of_frames) for name, extra in self.extras.items())

    def predictor(self, variant: str) -> Callable[..., dict[str, np.ndarray]]:
        """A function (state, rows of the table, shown) -> by task what its head says, [rows, ...], everywhere alike; as
        TASK/NAME what it says aside. Of frames as many as the labels have, 0 beyond the end of a clip. shown: the
        modalities that are; None: all."""
        if (program := self._program(variant)) not in self._forwards:
            of_frames = {task.name: task.kind in OF_FRAMES for task in self.config.tasks}
            self._forwards[program] = [
                self._make_forward(variant, [name for name, it_is in of_frames.items() if it_is == wanted], wanted)
                for wanted in sorted(set(of_frames.values()))
            ]
        forwards = self._forwards[program]

        def predict(state: TrainState, rows: np.ndarray, shown: Sequence[str] | None = None) -> dict[str, np.ndarray]:
            outputs: dict[str, np.ndarray] = {}
            seen = {name: np.array(shown is None or name in shown) for name in self.heard}
            for forward in forwards:
                for row, num_frames, values in forward((state, seen), self.table.select(rows)):
                    for name, x in values.items():
                        if not forward.of_clips:
                            missing = self.labels[name].shape[1] - num_frames
                            x = np.pad(x[:num_frames], [(0, missing)] + [(0, 0)] * (x.ndim - 1))
                        outputs.setdefault(name, np.zeros((len(rows), *x.shape), x.dtype))[row] = x
            return outputs

        return predict

    def _make_forward(self, variant: str, tasks: Sequence[str], of_frames: bool) -> Forward:
        trainer = self.trainer(variant)
        graphdef, objective = trainer.graphdef, trainer.objective

        def apply(given: tuple[TrainState, dict[str, jax.Array]], batch: Batch) -> dict[str, jax.Array]:
            state, shown = given
            model = nnx.merge(graphdef, state.params, state.kept, copy=True)
            share_out(model, FrameShares(self.run.mesh))
            outputs = objective.outputs(model, batch, shown=shown)
            return {name: x for name, x in outputs.items() if name.partition("/")[0] in tasks}

        return Forward(
            self.run, self.model(variant), apply, self.config.batch_frames, everywhere=True, of_clips=not of_frames,
            extras=self.extras,
        )  # fmt: skip

    def recipe(self, variant: str) -> dict[str, Any]:
        """What decides the result of every fold: of the recipe, and of what other stages left."""
        run, pretrained = self.run, variant == PRETRAINED
        unread = ["finetune.label_draw"] * (not self.few_labels)
        if self.frozen:
            own = run.fields(*[f"finetune.{name}" for name in FROZEN_READS], but=["finetune.tasks[*].weight", *unread])
            if pretrained:
                return own | {"encoder": self.encoder.fingerprint}
            network = flatten(as_dict(self.model(variant)), "model")
            return own | run.fields("seed") | {k: v for k, v in network.items() if k not in RATES} | {"encoder": ""}
        others = [*UNREAD, *(() if pretrained else unread_from_scratch(self.config))]
        model = self.model(variant)
        own = run.fields("seed", "finetune", but=[*[f"finetune.{name}" for name in others], *unread])
        own |= run.fields("finetune.corpora[*].weight" if self.config.corpora else "data.corpora[*].weight")
        own |= run.batches_recipe(model) | flatten(as_dict(model), "model")
        own |= text_recipe(self.config.text, self.table) if self.config.text is not None else {}
        return own | {"encoder": self.encoder.fingerprint if pretrained else ""}

    def check_trained(self) -> None:
        """Raises ValueError where the classifier of a fold was made, or begun, with another recipe."""
        for fold in self.folds:
            for variant in self.variants:
                self.run.check_begun(fold_name(variant, fold), self.recipe(variant) | self.reads(fold))

    def started_from(self, variant: str) -> str:
        """In words, for the fine-tuned encoder's card."""
        return "random weights" if variant == SCRATCH else f"the encoder {self.encoder.fingerprint}"
