"""The labelled clips of a recipe's `finetune` part: which each fold learns from, is chosen by and is tested on."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from mmpretrain.config import FinetuneConfig, TaskConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.labels import (
    OF_FRAMES,
    class_counts,
    few_of,
    has_label,
    labels_fingerprint,
    task_labels,
    why_not_learned,
    why_not_measured,
)
from mmpretrain.evaluation.comparison import Answers
from mmpretrain.evaluation.protocols import Fold, get_protocol
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.evaluation.told import Told
from mmpretrain.run.folds import fold_of, labelled_clips
from mmpretrain.run.layout import folds_of
from mmpretrain.run.run import Run
from mmpretrain.train.best import BestBy


class LabelledFolds:
    """Raises ValueError if the recipe has no `finetune` part, or it asks for what is not.

    clips: the table and what was left out of it, where somebody has opened them already. texts: as in `labelled_clips`.
    """

    def __init__(self, run: Run, clips: tuple[ClipTable, ClipTable] | None = None, *, texts: bool = False):
        self.run, self.config, self._texts = run, _require(run), texts
        modalities = self.modalities
        self.protocol = get_protocol(self.config.protocol)
        self.table, self.left_out = clips or labelled_clips(
            run.config, run.unreadable, modalities=modalities, texts=texts
        )
        self.labels = {task.name: task_labels(self.table, task) for task in self.config.tasks}
        self.selecting, metric = self.config.select_by.split("/")  # the task by which the model is chosen
        kind = next(task.kind for task in self.config.tasks if task.name == self.selecting)
        self.best_by = BestBy(f"validation/{self.config.select_by}", TASK_METRICS[kind].better[metric])

    @property
    def main(self) -> TaskConfig:
        """The task whose labelled clips the protocol deals out, and whose test figures are reported."""
        return self.config.tasks[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the network takes."""
        return self.run.config.model.modalities

    @property
    def heard(self) -> tuple[str, ...]:
        """The modalities that the heads hear of: the encoder's, and then those beside it."""
        beside = (*["text"] * (self._texts or self.config.text is not None), *self.config.tracks)
        return (*self.modalities, *beside)

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

    def graded_answers(self, number: int, outputs: np.ndarray) -> tuple[Answers, np.ndarray]:
        """What a head of the main task answers of a fold's test clips whose class is clear, and how likely it says each
        class is, float [N, C].

        outputs: [test rows, ...], what the head put out. The task is one of classes that exclude one another.
        """
        kept = self.classes_N[self.fold(number).test] >= 0
        log_probs_NC = TASK_METRICS[self.main.kind].chances(outputs[kept])
        return self.answers(self.graded(number).test, log_probs_NC.argmax(-1)), np.exp(log_probs_NC)

    def told_of(self, number: int, outputs: np.ndarray) -> Told:
        """All that a head of the main task put out of a fold's test clips, [test rows, ...]."""
        rows = self.fold(number).test
        texts = (tuple(texts[row] for row in rows) for texts in (self.table.clip_ids, self.table.speakers))
        return Told(self.main, *texts, self.labels[self.main.name][rows], outputs)

    def fold(self, number: int) -> Fold:
        """The clips of a fold, of the training clips those that are learned from.

        Raises ValueError where a task cannot be learned on them, or no model be chosen.
        """
        try:
            fold = fold_of(self.run.config, self.table, number, self.labels[self.main.name])
        except ValueError as error:
            because = ""
            if left_out := len(self.left_out):
                splits = ", ".join(self.left_out.index.splits.kinds())
                because = (
                    f". {left_out} of its clips ({splits}) were left out: they have no {' or '.join(self.heard)}, and "
                    f"model.modalities={tuple(self.modalities)}"
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
        metric, known = self.config.select_by.partition("/")[2], labels[has_label(labels)]
        if not why and self.config.selection != "last" and metric in TASK_METRICS[selecting.kind].untold(known):
            why = why_not_measured(labels, selecting) or f"has labels that tell no {metric}"
        if why:
            raise ValueError(
                f"finetune.select_by={self.config.select_by!r}: the validation part of fold {number} of "
                f"{self.protocol_title} {why} (task {self.selecting}); choose by another figure or task, or label more "
                "clips"
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

    def own_data(self, number: int, *parts: str) -> TrainingData:
        """What a fold sees besides: its "train" clips and those that it is chosen by, "validation", with labels."""
        rows = np.concatenate([getattr(self.fold(number), part) for part in parts])
        known: dict[str, np.ndarray] = {}
        for task in self.config.tasks:
            column, labelled = task.column or task.name, has_label(self.labels[task.name][rows])
            known[column] = known.get(column, False) | labelled
        return TrainingData.of(self.table.select(rows), known)

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

    def reads(self, number: int, *, test: bool = False) -> dict[str, Any]:
        """What decides the result of one fold beside that: its clips, and their labels of the recipe's tasks.

        test: those of its test part too, with their speakers, whom a table of predictions names. Batches that are
        spread over speakers depend on them as well.
        """
        fold = self.fold(number)
        parts = [fold.train, fold.validation, *[fold.test] * test]
        rows = np.concatenate(parts)
        clips = self.table.select(rows)
        spread = self.config.sampling == "spread" and self.config.classifier == "trained"
        speakers = {"speakers": clips.index.fingerprint("speakers")} if test or spread else {}
        labels = {name: of_table[rows] for name, of_table in self.labels.items()}
        return {
            "clips": clips.fingerprint, "clips of each part": [len(part) for part in parts],
            "labels": labels_fingerprint(labels), **speakers,
        }  # fmt: skip


def _require(run: Run) -> FinetuneConfig:
    if run.config.finetune is None:
        raise ValueError("this recipe has no finetune part; set `finetune=FinetuneConfig(...)` in it")
    return run.config.finetune
