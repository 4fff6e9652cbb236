"""What the recipe's `label_efficiency` stands for: classifiers that learn from some draws of some shares of the labels.

Every share and draw is a run in a folder of its own, that of the recipe with few labels and a seed of the draw: what is
trained in it can be looked at and replayed like any other. All share the table of clips and the compiled programs; an
encoder looks at every clip once.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from mmpretrain.config import CLASSIFIERS, REGRESSED, LabelEfficiencyConfig, TaskConfig, as_dict, flatten
from mmpretrain.downstream.baselines import PICTURE, SOUND, statistics_of_clips
from mmpretrain.downstream.finetuning import CLASSIFIER, Finetuning
from mmpretrain.downstream.frozen import Frozen, fit_heads
from mmpretrain.downstream.trained import trained_outputs
from mmpretrain.evaluation.baselines import baseline_answers, baseline_outputs
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.randomness import part_seed
from mmpretrain.run.layout import LABEL_EFFICIENCY, PRETRAINED, SCRATCH, fold_name
from mmpretrain.run.run import Run

TRAINED = (PRETRAINED, SCRATCH)  # as `finetune` calls them, too
FROZEN = {"frozen": PRETRAINED, "untrained_frozen": SCRATCH}
STATISTICS = {"sound_statistics": SOUND, "picture_statistics": PICTURE}
HEARS = {"sound_statistics": "audio", "picture_statistics": "video"}
STATISTICS_READ = ("tasks", "protocol", "label_share", "label_draw")


class Point(NamedTuple):
    """A classifier of the curve, of one draw of a share of the labels, or of `per_class` clips of each class."""

    share: float
    draw: int
    classifier: str
    per_class: int = 0

    @property
    def folder(self) -> str:
        """Of its share and draw."""
        some = f"perclass{self.per_class}" if self.per_class else f"share{self.share:g}"
        return f"{LABEL_EFFICIENCY}/{some}-draw{self.draw}"

    @property
    def stage(self) -> str:
        """Where its answers are."""
        return f"{self.folder}/{self.classifier}"


class Said(NamedTuple):
    """Of N test clips: outputs, what a head of the main task puts out, [N, ...]; or, of a classifier that says no more
    than a class, classes: int [N]."""

    outputs: np.ndarray | None
    classes: np.ndarray | None = None


def _regressed(task: TaskConfig) -> TaskConfig:
    """Without what a regression does not look at."""
    usual = TaskConfig(task.name)
    unread = {name: getattr(usual, name) for name in ("pooling", "loss", "focal_gamma", "class_weights", "reversal")}
    return dataclasses.replace(task, **unread)


class Curve:
    """The points of a run's curve. Raises ValueError where the recipe asks for none.

    asked: in place of the recipe's. per_class: of so many clips of each class; 0: of shares of them.
    """

    def __init__(self, run: Run, asked: LabelEfficiencyConfig | None = None, per_class: int = 0):
        self.run, self.asked, self.per_class = run, asked or run.config.label_efficiency, per_class
        if not self.asked.shares:
            raise ValueError(
                "label_efficiency.shares=(); say of which shares of the training labels to learn, e.g. "
                "--config.label_efficiency.shares='(0.1, 0.25, 1.0)'"
            )
        self.whole = Finetuning.of(run)
        self._finetunings: dict[Any, Finetuning] = {}
        self._frozen: dict[int, Frozen] = {}

    @functools.cached_property
    def classifiers(self) -> tuple[str, ...]:
        """Those that are asked for and can be had, in the order of `CLASSIFIERS`; of the others a line in the log."""
        lacking, part, kind = {}, self.run.config.finetune, self.whole.main.kind
        if kind not in REGRESSED:
            lacking |= dict.fromkeys((*FROZEN, *STATISTICS), f"a regression does not learn labels of kind {kind!r}")
        elif part.text is not None or part.tracks or part.fusion != "early":
            beside = f"finetune.fusion={part.fusion!r}" if part.fusion != "early" else "finetune.text or tracks"
            lacking |= dict.fromkeys(FROZEN, f"a regression on an encoder hears that alone ({beside})")
        if part.encoder == "none":
            lacking |= dict.fromkeys((PRETRAINED, "frozen"), "finetune.encoder='none'")
        for name, modality in HEARS.items():
            if modality not in self.whole.modalities:
                lacking[name] = f"model.modalities={tuple(self.whole.modalities)}"
            elif not self.whole.table.has(modality).any():
                lacking[name] = f"no clip has {modality}"
        asked = [name for name in CLASSIFIERS if name in self.asked.classifiers]
        for name in asked:
            if name in lacking:
                log(f"label efficiency: no {name}: {lacking[name]}")
        if not (found := tuple(name for name in asked if name not in lacking)):
            why = "; ".join(f"{name}: {lacking[name]}" for name in asked)
            raise ValueError(f"label_efficiency.classifiers={tuple(asked)}: none of them can be had ({why})")
        return found

    @property
    def points(self) -> list[Point]:
        """In order: the cheap ones of all shares first, those that are trained by steps last."""
        cheap_first = sorted(self.classifiers, key=lambda name: name in TRAINED)
        return [
            point
            for name in cheap_first
            for share in sorted(self.asked.shares)
            for point in self.points_of(share, name)
        ]

    def points_of(self, share: float, classifier: str) -> list[Point]:
        """One a draw: a single one where nothing would be drawn, neither clips nor random weights."""
        whole = share == 1 and not self.per_class
        draws = 1 if whole and classifier not in (*TRAINED, "untrained_frozen") else self.asked.draws
        return [Point(share, draw, classifier, self.per_class) for draw in range(draws)]

    def finetuning(self, point: Point) -> Finetuning:
        """What a point learns from, and with what seed. Points of all clips and of the run's own seed are the run's."""
        kind = "trained" if point.classifier in TRAINED else "frozen_linear"
        key = (point.share, point.per_class, point.draw, kind)
        if key not in self._finetunings:
            self._finetunings[key] = Finetuning(self._run(point, kind), like=self.whole)
        return self._finetunings[key]

    def _run(self, point: Point, kind: str) -> Run:
        config = copy.deepcopy(self.run.config)
        part = config.finetune
        own = (part.classifier, part.label_share, part.labels_per_class)
        if point.draw == 0 and own == (kind, point.share, point.per_class) and kind == "trained":
            return self.run  # what `finetune` trains is a point as it is
        config.workdir = str(self.run.workdir / point.folder)
        if point.draw:
            config.seed = part_seed(config.seed, "draw", point.draw) % 2**32
        part.label_share, part.labels_per_class = point.share, point.per_class
        part.label_draw += point.draw  # the first is the recipe's own
        part.classifier, part.compare_from_scratch = kind, True
        if kind == "frozen_linear":  # of all that a recipe may ask of heads with steps, what a regression learns
            part.text, part.tracks, part.fusion, part.head = None, (), "early", "attentive"
            if part.selection == "last":  # it has no steps; its penalty is chosen, as that of statistics always is
                part.selection = "val"
            part.tasks = tuple(map(_regressed, (task for task in part.tasks if task.kind in REGRESSED)))
            if part.select_by.partition("/")[0] not in [task.name for task in part.tasks]:
                part.select_by = f"{part.tasks[0].name}/loss"
        if part.encoder != "none":
            part.encoder = str(self.whole.encoder.path)
        return self.run.with_config(config)

    def recipe(self, point: Point) -> dict[str, Any]:
        """All that decides what a point answers."""
        finetuning, name = self.finetuning(point), point.classifier
        if name in STATISTICS:
            fields = [f"finetune.{field}" for field in STATISTICS_READ]
            fields += ["finetune.labels_per_class"] * bool(point.per_class)
            unread = ["finetune.tasks[*].weight", *["finetune.label_draw"] * (not finetuning.few_labels)]
            recipe = finetuning.run.fields(*fields, but=unread)
            if name != "sound_statistics":  # of the crop that the encoder sees
                recipe |= flatten(as_dict(self.whole.model(self.whole.variants[0]).inputs), "model.inputs")
        else:
            recipe = finetuning.recipe(FROZEN.get(name, name))
        folds = {
            f"fold {fold}/{k}": v
            for fold in finetuning.folds
            for k, v in finetuning.reads(fold, test=True).items()
        }  # fmt: skip
        return recipe | folds | {"folds": list(finetuning.folds)}

    def said(self, point: Point, number: int) -> Said:
        """What a point says of the test clips of a fold. All processes ask together."""
        finetuning, name = self.finetuning(point), point.classifier
        fold, main = finetuning.fold(number), finetuning.main
        if name in STATISTICS:
            return self._of_statistics(finetuning, name, number)
        if name in FROZEN:
            rows = np.concatenate([fold.train, fold.validation, fold.test])
            features_ND = self._layers(0 if FROZEN[name] == PRETRAINED else point.draw).features(FROZEN[name], rows)
            learned_ND, tested_ND = np.split(features_ND, [-len(fold.test)])

            def logits() -> list[list[float]]:
                heads, _ = fit_heads(finetuning, number, learned_ND)
                return heads[main.name].logits(tested_ND).tolist()

            return Said(np.array(on_main(logits)))
        classifier = finetuning.run.workdir / fold_name(name, number) / CLASSIFIER
        return Said(trained_outputs(finetuning, name, classifier, fold.test)[main.name])

    def _of_statistics(self, finetuning: Finetuning, name: str, number: int) -> Said:
        fold, main = finetuning.fold(number), finetuning.main
        given = self._statistics[STATISTICS[name]], finetuning.labels[main.name], fold

        def answer() -> list[Any]:
            try:
                of_class = main.kind == "class"
                said = baseline_answers(*given, main.classes) if of_class else baseline_outputs(*given, main)
            except ValueError as error:
                raise ValueError(
                    f"label_efficiency.classifiers: {name} cannot be trained in fold {number} of "
                    f"{finetuning.protocol_title}, with the {HEARS[name]} that there is: {error}; leave it out"
                ) from error
            return said.tolist()

        said = np.array(on_main(answer))
        return Said(None, said) if main.kind == "class" else Said(said)

    def _layers(self, draw: int) -> Frozen:
        """What the layers say of every clip; untrained ones have the random weights of a draw."""
        if draw not in self._frozen:
            self._frozen[draw] = Frozen(self.finetuning(Point(1.0, draw, "frozen")))
        return self._frozen[draw]

    @functools.cached_property
    def _statistics(self) -> dict[str, np.ndarray]:
        return statistics_of_clips(self.whole)
