"""One round of a run: its clips, its targets, the encoders it takes and leaves, and what decides its training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.config import RoundConfig, TaskConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.labels import KNOWN_OF_ALL, labels_fingerprint
from mmpretrain.data.manifest import SEEN_FILE
from mmpretrain.data.round_labels import round_labels, with_classes
from mmpretrain.objectives import OBJECTIVES
from mmpretrain.observe.progress import log
from mmpretrain.records import Batch
from mmpretrain.run.base import RunBase
from mmpretrain.run.codebook import RoundCodebook
from mmpretrain.run.layout import pretrain_name, targets_name
from mmpretrain.run.source import ForeignSource, SourceEncoder, left_by_round
from mmpretrain.targets.row_targets import RowTargets
from mmpretrain.targets.store import TargetStore
from mmpretrain.train.optimizer import make_optimizer, make_schedule
from mmpretrain.train.step import Trainer
from mmpretrain.train.training import Training

MOST_TOLD = 16  # classes of a task whose counts a line of the log has room for


class Round:
    """Round `number` (from 1) of a run. Clips, stores and trainer are made when they are first asked for, once."""

    def __init__(self, run: RunBase, number: int):
        assert 1 <= number <= len(run.config.rounds), f"the recipe has no round {number}"
        self.run, self.number = run, number
        self.config: RoundConfig = run.config.rounds[number - 1]
        self.field = f"rounds[{number - 1}]"  # its place in the recipe
        self.title = f"round {number}"
        self.targets_name, self.pretrain_name = targets_name(number), pretrain_name(number)

    @functools.cached_property
    def codebooks(self) -> tuple[RoundCodebook, ...]:
        return tuple(RoundCodebook(self.run, self.number, index) for index in range(len(self.config.targets)))

    @functools.cached_property
    def has(self) -> tuple[np.ndarray, np.ndarray]:
        """bool [N] each: which of the run's clips to train on, and to validate on, have targets of any codebook."""
        train, validation = zip(*(codebook.has for codebook in self.codebooks), strict=True)
        if left_out := int((~np.any(train, axis=0)).sum()):
            log(f"{self.title}: {left_out} of {len(train[0])} training clips have no targets and are left out")
        return np.any(train, axis=0), np.any(validation, axis=0)

    @functools.cached_property
    def clips(self) -> tuple[ClipTable, ClipTable]:
        """The run's clips to train on and those to validate on that have targets of at least one codebook."""
        train, validation = (table.select(has) for table, has in zip(self.run.clips, self.has, strict=True))
        return train, validation

    @property
    def encoder(self) -> SourceEncoder:
        """What the round leaves."""
        return left_by_round(self.run.workdir, self.number)

    @property
    def source(self) -> SourceEncoder | ForeignSource | None:
        """The encoder whose layers the round clusters; None: its targets are of the clips alone."""
        return next((codebook.source for codebook in self.codebooks if codebook.source is not None), None)

    @property
    def start(self) -> SourceEncoder | None:
        """The encoder whose weights training starts from; None: random ones."""
        if self.config.init == "random":
            return None
        if self.config.init == "previous_round":
            return left_by_round(self.run.workdir, self.number - 1)
        return SourceEncoder(Path(self.config.init))

    def check_start(self) -> None:
        """Raises FileNotFoundError or ValueError where its start is no encoder that can go on as the recipe's model."""
        if self.start is not None:
            self.start.check_goes_on(self.run.config.model, f"{self.field}.init")

    def check_named(self) -> None:
        """As `check_start`, and of the encoder that it clusters; what lies in the run's folder may be yet to come."""
        outside = [
            taken is not None and not taken.path.absolute().is_relative_to(self.run.workdir.absolute())
            for taken in (self.source, self.start)
        ]
        if outside[0]:
            _ = self.source.fingerprint
        if outside[1]:
            self.check_start()

    def training_data(self, *, chosen: bool = False) -> TrainingData:
        """What its encoder has seen: the clips it is trained on, and what the encoders it takes had seen.

        Codebooks are fitted on some of the same clips. chosen: of the encoder that is chosen on the validation clips.
        """
        data = TrainingData()
        for split in (0, *[1] * chosen):
            data |= TrainingData.of(self.clips[split], self._labels_seen(split))
        for taken in (self.source, self.start):
            data |= TrainingData() if taken is None else taken.training_data
        for corpus in self.run.config.data.corpora:  # whom a manifest was made by has a say in what is learned
            data |= TrainingData.read(Path(corpus.retrieved) / SEEN_FILE) if corpus.retrieved else TrainingData()
        return data

    def _labels_seen(self, split: int) -> dict[str, np.ndarray]:
        """By label column, bool [N], which clips to train on (0) or to validate on (1) a task has a label of that
        somebody said."""
        seen: dict[str, np.ndarray] = {}
        for task in self.config.tasks:
            column, (_, said) = task.column or task.name, self.labels[split][task.name]
            seen[column] = seen.get(column, False) | said
        return {column: said for column, said in seen.items() if column not in KNOWN_OF_ALL}

    @functools.cached_property
    def tasks(self) -> tuple[TaskConfig, ...]:
        """What is learned beside the clusters, with all classes named."""
        return tuple(
            dataclasses.replace(task, classes=with_classes(task, self.clips[0], f"{self.field}.tasks[{i}]"))
            for i, task in enumerate(self.config.tasks)
        )

    @functools.cached_property
    def labels(self) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], ...]:
        """Of the clips to train on and those to validate on, by task what `round_labels` returns.

        Raises ValueError for a task of which there is too little to learn.
        """
        corpora = self.run.config.data.corpora
        found = tuple({task.name: round_labels(clips, task, corpora) for task in self.tasks} for clips in self.clips)
        for i, task in enumerate(self.tasks):
            labels, said = found[0][task.name]
            of_class = np.bincount(labels[labels >= 0], minlength=len(task.classes))
            counts = ", ".join(f"{name} {count}" for name, count in zip(task.classes, of_class, strict=True) if count)
            if (of_class > 0).sum() < 2:
                raise ValueError(
                    f"{self.field}.tasks[{i}]: task {task.name} cannot be learned: of the {len(labels)} training clips "
                    f"there are {counts or 'none'} of {', '.join(task.classes)}; add clips with other labels to "
                    "data.corpora, or leave the task out"
                )
            if len(task.classes) <= MOST_TOLD:
                log(f"{self.title}: task {task.name}: {counts}, of which {int((~said & (labels >= 0)).sum())} by ear")
        return found

    @property
    def needs_previous(self) -> bool:
        """Whether it takes anything from the round before."""
        return self.number > 1 and left_by_round(self.run.workdir, self.number - 1) in (self.source, self.start)

    @property
    def stores(self) -> tuple[TargetStore, ...]:
        """The targets of every codebook."""
        return tuple(codebook.store for codebook in self.codebooks)

    @property
    def num_classes(self) -> list[int]:
        """Of each codebook's head."""
        return [targets.num_clusters + self.config.reference.dead_classes for targets in self.config.targets]

    @functools.cached_property
    def trainer(self) -> Trainer:
        tx = make_optimizer(self.config.optimizer, self.config.num_steps)
        config = dataclasses.replace(self.config, tasks=self.tasks)
        return self.run.make_trainer(OBJECTIVES[config.objective](self.run.config.model, config), tx)

    def training(self) -> Training:
        """What decides every step."""
        run, config, start = self.run, self.config, self.start
        train, _ = self.clips
        batches = run.training_batches(
            self.pretrain_name, train, run.config.model, config.num_steps, batch_frames=run.config.data.batch_frames,
            **self._targets(0),
        )  # fmt: skip
        return Training(
            self.pretrain_name, self.trainer, batches, config.num_steps, run.stage_seed(self.pretrain_name),
            learning_rate=make_schedule(config.optimizer, config.num_steps),
            initialize=(lambda state: state) if start is None else (lambda state: start.put_into(state, self.trainer)),
        )  # fmt: skip

    def validation_batches(self) -> Iterator[Batch]:
        """Every validation clip once, with its targets."""
        run = self.run
        batches = run.evaluation_batches(
            self.clips[1], run.config.model, batch_frames=run.config.data.batch_frames, **self._targets(1)
        )
        return (batch for _, batch in batches)

    def _targets(self, split: int) -> dict[str, Any]:
        """Of the clips to train on (0) or to validate on (1), with the labels of tasks, as `make_batch` takes them."""
        targets = [
            RowTargets(codebook.store.ids, codebook.store.offsets, codebook.rows[split][self.has[split]])
            for codebook in self.codebooks
        ]
        labels = {name: of_task for name, (of_task, _) in self.labels[split].items()}
        return {
            "targets": targets, "targets_per_frame": self.config.reference.targets_per_frame, "labels": labels,
        }  # fmt: skip

    def targets_recipe(self) -> dict[str, Any]:
        """All that decides the targets: of the recipe, and of what other stages left."""
        field, weights = self.field, f"{self.field}.targets[*].weight"
        own = self.run.fields("seed", f"{field}.targets", f"{field}.reference.targets_per_frame", but=[weights])
        source = {f"{field}.encoder": self.source.fingerprint} if self.source else {}
        speakers = {
            f"speakers of codebook {codebook.index + 1}": codebook.centring.fingerprint
            for codebook in self.codebooks if codebook.centring
        }  # fmt: skip
        return own | source | speakers | self._clips_recipe()

    def pretrain_recipe(self) -> dict[str, Any]:
        """All that decides the encoder."""
        run, of_targets = self.run, (f"{self.field}.targets", f"{self.field}.encoder")
        own = run.fields("seed", "model", "data.batch_frames", "data.corpora[*].weight",
                         f"{self.field}.targets[*].num_clusters", f"{self.field}.targets[*].weight")  # fmt: skip
        elsewhere = self.config.init not in ("random", "previous_round")  # named by its fingerprint, wherever it lies
        own |= run.fields(self.field, but=[*of_targets, *[f"{self.field}.init"] * elsewhere])
        own |= run.batches_recipe(run.config.model)
        taken = {f"targets of codebook {codebook.index + 1}": codebook.fingerprint for codebook in self.codebooks}
        taken |= {"starting encoder": self.start.fingerprint} if self.start else {}
        if self.config.tasks:
            of_both = zip(("labels", "labels of validation"), self.labels, strict=True)
            taken |= {name: labels_fingerprint({k: v for k, (v, _) in split.items()}) for name, split in of_both}
        return own | taken | self._clips_recipe()

    def _clips_recipe(self) -> dict[str, Any]:
        train, validation = self.clips
        return {"clips": train.fingerprint + validation.fingerprint}
