"""Units from few labels: what a recipe's `units` part stands for, and what each of its classifiers says of test clips.

Classifiers are named as in results: a frozen probe of the pretrained encoder (`pretrained`), of the network before its
first step (`untrained`) and of plain features (`mfcc`, or `picture` where no sound is shown); and the same network
trained on those labels alone (`scratch`) or from the encoder (`finetuned`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpretrain.config import ModelConfig
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.data.exposure import Exposure
from mmpretrain.data.frame_labels import with_classes
from mmpretrain.data.labels import has_label, task_labels, why_not_learned
from mmpretrain.downstream.frame_features import FrameFeatures, layers_of_frames, plain_features
from mmpretrain.downstream.frame_networks import FrameNetworks
from mmpretrain.evaluation.frame_probe import discriminants
from mmpretrain.evaluation.frames import Counts, count
from mmpretrain.evaluation.protocols import get_protocol
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.parallel.mesh import whole
from mmpretrain.run.run import Run
from mmpretrain.run.source import SourceEncoder

FOLD = 1
SEEDS = "units"  # of the networks
RATES = ("dropout", "attention_dropout", "input_dropout")


class Said(NamedTuple):
    """What a classifier said of the test clips, and what of it was chosen on validation clips, in words."""

    counts: Counts
    chosen: str


class Units:
    """Raises ValueError where the recipe has no such part, or its clips cannot be labelled or dealt out."""

    def __init__(self, run: Run):
        if run.config.units is None:
            raise ValueError("this recipe has no units part; set `units=UnitsConfig(...)` in it")
        self.run, self.config = run, run.config.units
        self._networks: dict[tuple[str, ...], FrameNetworks] = {}
        self.inputs = {text: tuple(text.split("+")) for text in self.config.inputs}
        modalities = run.config.model.modalities
        self._check_inputs(modalities, "model.modalities")
        if self.config.encoder != "last_round":
            self.encoder.check_hears(modalities, "units.encoder")
            modalities = tuple(self.encoder.config.modalities)
            self._check_inputs(modalities, f"the modalities of units.encoder={self.config.encoder!r}")
        corpora = self.config.corpora or run.config.data.corpora
        table = open_clips(corpora, unreadable=run.unreadable).require(modalities)
        self.protocol = get_protocol(self.config.protocol)
        self.task = with_classes(table, self.config.task)
        labels_NT = task_labels(table, self.task)
        labelled = np.flatnonzero(has_label(labels_NT))
        fold = self.protocol.deal(table.index, FOLD, labelled)
        draws = [_drawn(table, fold.train, draw) for draw in range(self.config.draws)]
        most = max(number or len(fold.train) for number in self.config.labelled_clips)
        chosen_on = np.sort(_drawn(table, fold.validation, 0)[: self.config.validation_clips or None])
        used = np.unique(np.concatenate([*(drawn[:most] for drawn in draws), chosen_on, fold.test]))
        self.table, self.labels_NT = table.select(used), labels_NT[used]
        self.num_training_clips = len(fold.train)
        self.draws = [np.searchsorted(used, drawn[:most]) for drawn in draws]
        self.validation, self.test = (np.searchsorted(used, part) for part in (chosen_on, fold.test))
        if self.task.silence and self.task.silence not in self.task.classes:
            raise ValueError(
                f"units.task.silence={self.task.silence!r}; it must be one of its classes {self.task.classes}, or ''"
            )
        self.silence = self.task.classes.index(self.task.silence) if self.task.silence else None
        for clips in self.numbers:
            if why := why_not_learned(self.labels_NT[self.rows(clips, 0)], self.task):
                raise ValueError(f"units.task: {self.task.name} cannot be learned from {clips} clips: {why}")

    def _check_inputs(self, modalities: tuple[str, ...], whose: str) -> None:
        for text, names in self.inputs.items():
            if unknown := [name for name in names if name not in modalities]:
                raise ValueError(f"units.inputs={text!r}: {unknown[0]!r} is none of {whose}={modalities}")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of labelled clips, ascending; more than there are stand for all."""
        most = self.num_training_clips
        return tuple(sorted({min(number or most, most) for number in self.config.labelled_clips}))

    def rows(self, clips: int, draw: int) -> np.ndarray:
        """The training clips of a draw, by clip id: more of the same draw hold all of fewer."""
        return np.sort(self.draws[draw][:clips])

    def who(self, rows: np.ndarray) -> tuple[list[str], list[str]]:
        """Ids and speakers of these clips."""
        return [self.table.clip_ids[row] for row in rows], [self.table.speakers[row] for row in rows]

    @functools.cached_property
    def encoder(self) -> SourceEncoder:
        return self.run.encoder_named(self.config.encoder, "units.encoder")

    @property
    def model(self) -> ModelConfig:
        """The encoder's own architecture with the rates of these trainings."""
        rates = dict.fromkeys(RATES, self.config.dropout)
        return dataclasses.replace(
            self.encoder.config, **rates, activation_dropout=0.0, layerdrop=0.0, feature_grad_scale=1.0
        )

    def networks(self, modalities: Sequence[str]) -> FrameNetworks:
        """Those with the front-ends of these modalities alone, one object however often it is asked for."""
        if (names := tuple(modalities)) not in self._networks:
            model = dataclasses.replace(self.model, modalities=names)
            self._networks[names] = FrameNetworks(
                self.run, self.config, self.task, self.table, self.labels_NT, model, self.silence
            )
        return self._networks[names]

    @property
    def exposure(self) -> Exposure:
        """Of the test clips, what the encoder has seen."""
        return self.encoder.training_data.exposure(self.table, self.test, self.task.column or self.task.name)

    def features(self, name: str, inputs: Sequence[str]) -> FrameFeatures:
        """Those of a frozen classifier, of all clips of the fold."""
        if name in ("mfcc", "picture"):
            return plain_features(self.model, self.table, inputs)
        title = f"{name} encoder, {'+'.join(inputs)}: layers of every frame"
        return layers_of_frames(self.run, self._module(name), self.table, inputs, title)

    def _module(self, name: str) -> AVEncoder:
        if name == "pretrained":
            return self.encoder.load().module
        trainer = self.networks(self.encoder.config.modalities).trainer
        return trainer.model(whole(trainer.init(self.run.stage_seed(SEEDS)), self.run.mesh)).encoder

    def probe(self, features: FrameFeatures, rows: np.ndarray) -> Said:
        """A discriminant fitted on these clips. Its features and shrinkage are those with the fewest validation errors;
        of equals the first."""
        known = {row: self._labels(row) >= 0 for row in rows}
        labels_K = np.concatenate([self._labels(row)[known[row]] for row in rows])
        chosen = None
        for kind, name in enumerate(features.names):
            x_KF = np.concatenate([features.of(kind, row)[known[row]] for row in rows])
            fitted = list(discriminants(x_KF, labels_K, len(self.task.classes)))
            said = [  # clip by clip: with all layers and their context, features are large
                [found.answers(x_TF) for _, found in fitted]
                for row in self.validation
                for x_TF in [features.of(kind, row)]
            ]
            for (shrinkage, found), answers in zip(fitted, zip(*said, strict=True), strict=True):
                error = self._count(self.validation, answers)
                if chosen is None or error.error < chosen[0]:
                    chosen = error.error, found, kind, f"{name}, shrinkage {shrinkage:g}"
        assert chosen is not None
        _, found, kind, words = chosen
        return Said(self._count(self.test, [found.answers(features.of(kind, row)) for row in self.test]), words)

    def network(self, inputs: Sequence[str], clips: int, draw: int, *, pretrained: bool) -> Said:
        """A network trained on the clips of a draw, its step chosen by validation errors.

        pretrained: from the encoder, front-ends that nothing is shown to included; else without those.
        """
        name = f"{SEEDS}/{'+'.join(inputs)}/{clips} clips/draw {draw}"
        networks = self.networks(self.encoder.config.modalities if pretrained else inputs)
        start = self.encoder if pretrained else None
        state, step = networks.train(name, self.rows(clips, draw), self.validation, inputs, start)
        return Said(networks.counts(state, self.test, inputs), f"step {step}")

    def _labels(self, row: int) -> np.ndarray:
        return self.labels_NT[row, : self.table.lengths[row]]

    def _count(self, rows: np.ndarray, answers: Sequence[np.ndarray]) -> Counts:
        return count([self._labels(row) for row in rows], answers, self.silence)


def _drawn(table: ClipTable, rows: np.ndarray, draw: int) -> np.ndarray:
    """These clips in the order of a draw, by clip id."""
    return rows[np.argsort(table.draws(f"labels {draw}")[rows], kind="stable")]
