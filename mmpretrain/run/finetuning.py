"""Fine-tuning as the recipe wants it: the labelled clips, the folds, and the network and training of each variant."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import FinetuneConfig, ModelConfig, TaskConfig, as_dict, flatten
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.extras import ClipFeatures
from mmpretrain.data.labels import (
    OF_FRAMES,
    class_counts,
    class_weights,
    few_of,
    has_label,
    labels_fingerprint,
    sampling,
    task_labels,
    why_not_learned,
    why_not_measured,
)
from mmpretrain.evaluation.comparison import Answers
from mmpretrain.evaluation.protocols import Fold, get_protocol
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.models.sharing import share_out
from mmpretrain.objectives.supervised import Supervised, weights_of
from mmpretrain.parallel.mesh import FrameShares
from mmpretrain.records import Batch
from mmpretrain.run.folds import fold_of, labelled_clips
from mmpretrain.run.forward import Forward
from mmpretrain.run.layout import PRETRAINED, SCRATCH, fold_name, folds_of, variants
from mmpretrain.run.learning import what_learns
from mmpretrain.run.run import Run
from mmpretrain.run.source import SourceEncoder
from mmpretrain.run.texts import text_features, text_recipe
from mmpretrain.train.best import BestBy
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
# What the trained heads of a fold do not depend on; and what they do alone where they stand on a pretrained encoder.
UNREAD = (
    "encoder", "corpora", "folds", "compare_from_scratch", "accept_seen_labels", "modality_table", "text.encoder",
)  # fmt: skip
OF_ENCODER = ("freeze_steps", "encoder_rate", "layer_decay", "unfreeze_every", "lora_rank")
RATES = ("dropout", "attention_dropout", "input_dropout", "activation_dropout", "layerdrop", "feature_grad_scale")


class Finetuning:
    """What the recipe's `finetune` part stands for. Raises ValueError if there is none, or it asks for what is not.

    A variant is the pretrained encoder or the same network from random weights. like: one that differs in its seed,
    its folder, its encoder's weights or its labels that are kept back, and nothing else: its table and its compiled
    programs serve here as well.
    """

    def __init__(self, run: Run, like: Finetuning | None = None):
        self.run, self.config, self._like = run, _require(run), like
        self.protocol = get_protocol(self.config.protocol)
        self.table, self._left_out = (
            (like.table, like._left_out) if like else labelled_clips(run.config, run.unreadable)
        )
        self._trainers: dict[str, Trainer] = like._trainers if like else {}
        self._forwards: dict[str, list[Forward]] = like._forwards if like else {}
        # of each encoder that was looked through, by row what its layers say (`run.frozen`)
        self.layers: dict[str, dict[int, np.ndarray]] = like.layers if like else {}
        self.labels = {task.name: task_labels(self.table, task) for task in self.config.tasks}
        self.selecting, metric = self.config.select_by.split("/")  # the task by which the model is chosen
        kind = next(task.kind for task in self.config.tasks if task.name == self.selecting)
        self.best_by = BestBy(f"validation/{self.config.select_by}", TASK_METRICS[kind].better[metric])

    @property
    def main(self) -> TaskConfig:
        """The task whose labelled clips the protocol deals out, and whose test figures are reported."""
        return self.config.tasks[0]

    @property
    def of_frames(self) -> tuple[str, ...]:
        """The tasks whose labels are of frames."""
        return tuple(task.name for task in self.config.tasks if task.kind in OF_FRAMES)

    @property
    def of_classes(self) -> bool:
        """Whether the main task's labels are classes that exclude one another, so that UA and the like are told."""
        return TASK_METRICS[self.main.kind].chances is not None

    @property
    def main_column(self) -> str:
        """The label column of the main task."""
        return self.main.column or self.main.name

    @property
    def told(self) -> str:
        """What the heads tell, in words: the classes, or the names of tasks that have none."""
        return ", ".join(", ".join(task.classes) or task.name for task in self.config.tasks)

    @property
    def protocol_title(self) -> str:
        """Marked where the model is chosen on the test clips."""
        return f"{self.protocol.name} v{self.protocol.version}" + ", test-best" * self._on_test

    @property
    def _on_test(self) -> bool:
        return self.config.selection == "test-best"

    @property
    def folds(self) -> tuple[int, ...]:
        return folds_of(self.config)

    @property
    def variants(self) -> tuple[str, ...]:
        return variants(self.config.encoder, self.config.compare_from_scratch)

    @property
    def frozen(self) -> bool:
        """Whether nothing is trained but a regression on what the encoder says (`run.frozen`)."""
        return self.config.classifier == "frozen_linear"

    @property
    def few_labels(self) -> str:
        """The fields that keep labels back, in words; "" if none does."""
        config = self.config
        if not config.labels_per_class and config.label_share == 1:
            return ""
        kept = "labels_per_class" if config.labels_per_class else "label_share"
        return f"finetune.{kept}={getattr(config, kept)}, label_draw={config.label_draw}"

    @functools.cached_property
    def classes_N(self) -> np.ndarray:
        """int [N]: the class that each clip of the table has by the main task; -1: none, or votes say two as often."""
        labels, told = self.labels[self.main.name], self.of_classes or self.main.kind == "embedding"
        return TASK_METRICS[self.main.kind].classes(labels) if told else np.where(has_label(labels), 0, -1)

    def graded(self, number: int) -> Fold:
        """The clips of a fold whose class by the main task is clear, as right and wrong are counted on."""
        fold = self.fold(number)
        return Fold(*(rows[self.classes_N[rows] >= 0] for rows in (fold.train, fold.validation, fold.test)))

    def answers(self, rows: np.ndarray, predictions: np.ndarray) -> Answers:
        """What a classifier says, int class ids, of the main task of these rows of the table."""
        texts = (tuple(texts[row] for row in rows) for texts in (self.table.clip_ids, self.table.speakers))
        return Answers(tuple(self.main.classes), *texts, self.classes_N[rows], predictions)

    def fold(self, number: int) -> Fold:
        """The clips of a fold, of the training clips those that are learned from.

        Raises ValueError where a task cannot be learned on them, or no model be chosen.
        """
        try:
            fold = fold_of(self.run.config, self.table, number, self.labels[self.main.name])
        except ValueError as error:
            because, modalities = "", tuple(self.run.config.model.modalities)
            if left_out := len(self._left_out):
                splits = ", ".join(self._left_out.index.splits.kinds())
                because = (
                    f". {left_out} of its clips ({splits}) were left out: they have no {' or '.join(modalities)}, and "
                    f"model.modalities={modalities}"
                )
            field = f"finetune.protocol={self.config.protocol!r} on {self.table.folders()}"
            raise ValueError(f"{field}: {error}{because}") from error
        if self._on_test:
            fold = dataclasses.replace(fold, validation=fold.test)
        if self.few_labels:
            draws = self.table.draws(f"labels {self.config.label_draw}")[fold.train]
            share, per_class = self.config.label_share, self.config.labels_per_class
            kept = few_of(self.classes_N[fold.train], draws, share=share, per_class=per_class)
            fold = dataclasses.replace(fold, train=fold.train[kept])
        for i, task in enumerate(self.config.tasks):
            if why := why_not_learned(self.labels[task.name][fold.train], task):
                field = f"finetune.tasks[{i}]" + (f".classes={tuple(task.classes)}" if task.classes else "")
                more = f"learn from more labels or others ({self.few_labels}), " if self.few_labels else ""
                raise ValueError(
                    f"{field}: task {task.name} cannot be learned in fold {number} of {self.protocol_title}: {why}, of "
                    f"{self.table.folders()}; {more}prepare training clips with other labels, change the tasks, or use "
                    "another finetune.protocol"
                )
        selecting = next(task for task in self.config.tasks if task.name == self.selecting)
        labels, why = self.labels[self.selecting][fold.validation], ""
        if not has_label(labels).any() or (not selecting.classes and self.best_by.better == "higher"):
            why = why_not_measured(labels, selecting)
        if why:
            raise ValueError(
                f"finetune.select_by={self.config.select_by!r}: the validation part of fold {number} of "
                f"{self.protocol_title} {why} (task {self.selecting}); choose by another task, or label more clips"
            )
        return fold

    def training_labels(self, number: int) -> dict[str, Any]:
        """By task, how many training clips of a fold are learned from: of each class, or with a label."""
        rows, counts = self.fold(number).train, {}
        for task in self.config.tasks:
            labels = self.labels[task.name][rows]
            known = int(has_label(labels).sum())
            of_classes = zip(task.classes, class_counts(labels, task).tolist(), strict=True) if task.classes else ()
            counts[task.name] = dict(of_classes) or known
        return counts

    @property
    def encoder(self) -> SourceEncoder:
        """The pretrained one."""
        if self.config.encoder != "last_round":
            return SourceEncoder(Path(self.config.encoder))
        if not (number := len(self.run.config.rounds)):
            raise ValueError("finetune.encoder='last_round', but this recipe has no rounds; name an encoder, or 'none'")
        return self.run.round(number).encoder

    @functools.cached_property
    def encoder_data(self) -> TrainingData:
        """What the pretrained encoder and its ancestors have seen."""
        return self.encoder.training_data

    def own_data(self, number: int, *parts: str) -> TrainingData:
        """What a fold sees besides: its "train" clips and those that it is chosen by, "validation", with labels."""
        rows = np.concatenate([getattr(self.fold(number), part) for part in parts])
        known: dict[str, np.ndarray] = {}
        for task in self.config.tasks:
            column, labelled = task.column or task.name, has_label(self.labels[task.name][rows])
            known[column] = known.get(column, False) | labelled
        return TrainingData.of(self.table.select(rows), known)

    def training_data(self, variant: str, number: int) -> TrainingData:
        """What the fine-tuned encoder of a fold and its ancestors have seen."""
        own = self.own_data(number, "train", "validation")
        return self.encoder_data | own if variant == PRETRAINED else own

    def model(self, variant: str) -> ModelConfig:
        """The encoder's own architecture, or the recipe's, with the rates of fine-tuning."""
        base = self.encoder.config if variant == PRETRAINED else self.run.config.model
        rates = dict.fromkeys(("dropout", "attention_dropout", "input_dropout"), self.config.dropout)
        return dataclasses.replace(
            base, **rates, activation_dropout=0.0, layerdrop=0.0, feature_grad_scale=self.config.feature_grad_scale
        )

    def trainer(self, variant: str) -> Trainer:
        """One for all folds, so that they run one program."""
        if variant not in self._trainers:
            self._trainers[variant] = self._make_trainer(variant)
        return self._trainers[variant]

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
        sampled = sampling(config.sampling, clips, labels[self.main.name], self.classes_N[fold.train], self.main)
        batches = self.run.training_batches(
            name, clips, self.model(variant), config.num_steps, batch_frames=config.batch_frames, extras=self.extras,
            labels=labels, of_frames=self.of_frames, freq_mask=config.freq_mask, freq_warp=config.freq_warp, **sampled,
        )  # fmt: skip
        return Training(
            name, trainer, batches, config.num_steps, self.run.stage_seed(name),
            learning_rate=make_schedule(config.optimizer, config.num_steps),
            initialize=(lambda state: self.encoder.put_into(state, trainer)) if variant == PRETRAINED
            else (lambda state: state),
        )  # fmt: skip

    @functools.cached_property
    def extras(self) -> dict[str, ClipFeatures]:
        """What batches have beside the encoder's modalities: the features of texts, if any is heard."""
        if self.config.text is None or self._like is not None:
            return {} if self._like is None else self._like.extras
        return {"text": text_features(self.run, self.config.text, self.table)}

    @property
    def _beside(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, features.shape[1]) for name, features in self.extras.items())

    @property
    def heard(self) -> tuple[str, ...]:
        """The modalities that the heads hear of, the text last."""
        return (*self.run.config.model.modalities, *["text"] * (self.config.text is not None))

    def predictor(self, variant: str) -> Callable[..., dict[str, np.ndarray]]:
        """A function (state, rows of the table, shown) -> by task what its head says, [rows, ...], everywhere alike; as
        TASK/NAME what it says aside. Of frames as many as the labels have, 0 beyond the end of a clip. shown: the
        modalities that are; None: all."""
        if variant not in self._forwards:
            of_frames = {task.name: task.kind in OF_FRAMES for task in self.config.tasks}
            self._forwards[variant] = [
                self._make_forward(variant, [name for name, it_is in of_frames.items() if it_is == wanted], wanted)
                for wanted in sorted(set(of_frames.values()))
            ]
        forwards = self._forwards[variant]

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

    def metrics(self, outputs: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
        """TASK/METRIC of what `predictor` says of these rows, over those that have a label; `loss` is of all tasks."""
        values: dict[str, float] = {"loss": 0.0}
        for task in self.config.tasks:
            labels = self.labels[task.name][rows]
            known = has_label(labels)
            found = TASK_METRICS[task.kind].of(labels[known], outputs[task.name][known], task) if known.any() else {}
            values |= {f"{task.name}/{name}": value for name, value in found.items()}
            values["loss"] += task.weight * found.get("loss", 0.0)
        return values

    def recipe(self, variant: str) -> dict[str, Any]:
        """What decides the result of every fold: of the recipe, and of what other stages left."""
        run, pretrained = self.run, variant == PRETRAINED
        unread = ["finetune.label_draw"] * (not self.few_labels)
        if self.frozen:
            own = run.fields(*[f"finetune.{name}" for name in FROZEN_READS], but=["finetune.tasks[*].weight", *unread])
            if pretrained:
                return own | {"encoder": self.encoder.fingerprint}
            return own | run.fields("seed", "model", but=[f"model.{rate}" for rate in RATES]) | {"encoder": ""}
        others = [*UNREAD, *OF_ENCODER * (not pretrained)]
        model = self.model(variant)
        own = run.fields("seed", "finetune", but=[*[f"finetune.{name}" for name in others], *unread])
        own |= run.fields("finetune.corpora[*].weight" if self.config.corpora else "data.corpora[*].weight")
        own |= run.batches_recipe(model) | flatten(as_dict(model), "model")
        own |= text_recipe(self.config.text, self.table) if self.config.text is not None else {}
        return own | {"encoder": self.encoder.fingerprint if pretrained else ""}

    def reads(self, number: int, *, test: bool = False) -> dict[str, Any]:
        """What decides the result of one fold beside that: its clips, and their labels of the recipe's tasks.

        test: those of its test part too, with their speakers, whom a table of predictions names.
        """
        fold = self.fold(number)
        parts = [fold.train, fold.validation, *[fold.test] * test]
        rows = np.concatenate(parts)
        clips = self.table.select(rows)
        speakers = {"speakers": clips.index.fingerprint("speakers")} if test else {}
        labels = {name: of_table[rows] for name, of_table in self.labels.items()}
        return {
            "clips": clips.fingerprint, "clips of each part": [len(part) for part in parts],
            "labels": labels_fingerprint(labels), **speakers,
        }  # fmt: skip

    def started_from(self, variant: str) -> str:
        """In words, for the fine-tuned encoder's card."""
        return "random weights" if variant == SCRATCH else f"the encoder {self.encoder.fingerprint}"


def _require(run: Run) -> FinetuneConfig:
    if run.config.finetune is None:
        raise ValueError("this recipe has no finetune part; set `finetune=FinetuneConfig(...)` in it")
    return run.config.finetune
