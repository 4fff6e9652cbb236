"""Frozen probes of a round's encoder and, beside it, of the same network before its first step."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmpretrain.config import fingerprint
from mmpretrain.downstream.exposure import VALIDATION_SEEN
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.evaluation.comparison import compare
from mmpretrain.evaluation.probe import Probe, linear_probe
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.parallel.mesh import whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.randomness import generator
from mmpretrain.run.forward import layer_statistics
from mmpretrain.run.layout import pretrain_name, read_health
from mmpretrain.run.round import Round

MAX_CLIPS = 4000  # to train on, and to score on: more would cost much time and say little more


class Probing:
    """Probes on the training and validation clips of the first fold that the recipe runs; no test clip is read.

    Raises ValueError or FileNotFoundError where its clips cannot be opened or split.
    """

    def __init__(self, finetuning: Finetuning):
        self.finetuning, self.run, self.number = finetuning, finetuning.run, finetuning.folds[0]
        if not finetuning.of_classes:
            raise ValueError(f"the first task, {finetuning.main.name}, has no classes that exclude one another")
        fold = finetuning.graded(self.number)
        self.train, self.validation = _some(fold.train), _some(fold.validation)
        self._rows = np.concatenate([self.train, self.validation])

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides a probe beside the encoder."""
        finetuning, clips = self.finetuning, self.finetuning.table.select(self._rows)
        return finetuning.reads(self.number) | {
            "speakers": clips.index.fingerprint("speakers"), "classes": list(finetuning.main.classes),
            "protocol": finetuning.config.protocol, "fold": self.number,
        }  # fmt: skip

    def of_round(self, round_: Round) -> dict[str, Any]:
        """The figures of the round's encoder, beside those of the untrained one and what it gains on it."""
        finetuning, untrained = self.finetuning, self._untrained()
        features = self._features(round_.encoder.load().module, round_.title)
        data = round_.encoder.training_data | finetuning.own_data(self.number, "train")
        seen = data.exposure(finetuning.table, self.validation, finetuning.main_column)

        def figures() -> dict[str, Any]:
            probe = self._probe(features)
            said = (probe.predicted, np.array(untrained["predicted"]))
            gain = compare(*(finetuning.answers(self.validation, predicted) for predicted in said))
            return _figures(probe) | {
                "chance_ua": probe.chosen.chance_ua, "clips": len(self.validation), "training_clips": len(self.train),
                "protocol": finetuning.protocol_title, "fold": self.number, VALIDATION_SEEN: str(seen),
                "untrained": untrained, "over_untrained": gain["ua"] | {"resampled": gain["resampled"]},
            }  # fmt: skip

        return on_main(figures)

    def _untrained(self) -> dict[str, Any]:
        """The figures of the network as the first round of the recipe begins with it, one for all rounds.

        Measured once for these clips: then they are in the health of a round.
        """
        run, name = self.run, pretrain_name(1)
        of = fingerprint(run.fields("seed", "model", "rounds[0].objective") | self.recipe)
        if known := on_main(lambda: self._known(of)):
            return known
        trainer = run.round(1).trainer
        encoder = trainer.model(whole(trainer.init(run.stage_seed(name)), run.mesh)).encoder
        features = self._features(encoder, "untrained encoder")

        def figures() -> dict[str, Any]:
            probe = self._probe(features)
            return {"of": of} | _figures(probe) | {"predicted": probe.predicted.tolist()}

        return on_main(figures)

    def _known(self, of: str) -> dict[str, Any] | None:
        for number in range(1, len(self.run.config.rounds) + 1):
            probe = read_health(self.run.workdir, number).get("probe")
            if probe and probe["untrained"]["of"] == of:
                return probe["untrained"]
        return None

    def _features(self, encoder: AVEncoder, title: str) -> np.ndarray:
        clips = self.finetuning.table.select(self._rows)
        return layer_statistics(self.run, encoder, clips, f"{title}: features to probe")

    def _probe(self, features_NLF: np.ndarray) -> Probe:
        rows, main = self._rows, self.finetuning.main
        train, validation = np.split(np.arange(len(rows)), [len(self.train)])
        labels, speakers = self.finetuning.classes_N[rows], self.finetuning.table.speakers.take(rows)
        return linear_probe(features_NLF, labels, np.array(list(speakers)), train, validation, main.classes)


def _figures(probe: Probe) -> dict[str, Any]:
    return {"ua": probe.chosen.ua, "layer": probe.layer, "ua_by_layer": [result.ua for result in probe.results]}


def _some(rows: np.ndarray) -> np.ndarray:
    """At most `MAX_CLIPS` of them, in their order; always the same draw."""
    drawn = generator(0, "probe", len(rows)).permutation(len(rows))[:MAX_CLIPS]
    return rows[np.sort(drawn)]
