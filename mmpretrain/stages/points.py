"""The points of a curve measured: trained, if they are not, and tested on every fold, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpretrain.config import as_dict
from mmpretrain.downstream.checking import check_folds
from mmpretrain.downstream.curve import TRAINED, Curve, Point, Said
from mmpretrain.downstream.exposure import check_exposure
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.predictions import read_answers, read_told, table_name, told_name, write_answers, write_told
from mmpretrain.evaluation.comparison import Answers
from mmpretrain.evaluation.told import Told
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.layout import CONFIG_FILE
from mmpretrain.run.sealed import write_sealed
from mmpretrain.stages.finetune import train_folds

MADE_BY = "label-efficiency"  # that makes the tables again


def measure_curve(curve: Curve) -> float:
    """Trains and tests every point on every fold, passing over what is done; returns the seconds that it took."""
    check_folds(curve.whole)
    check_exposure(curve.whole)
    for point in curve.points:
        curve.run.check_begun(point.stage, curve.recipe(point))
    return sum(_measure(curve, point) for point in curve.points)


def _measure(curve: Curve, point: Point) -> float:
    """Trains a point, if it is, and tests it on all folds. Returns the seconds that this took, whenever that was."""
    finetuning, name, seconds = curve.finetuning(point), point.classifier, 0.0
    if name in TRAINED:
        own = finetuning.run is not curve.run
        if own:  # for `replay`
            recipe = as_dict(finetuning.run.config)
            on_main(lambda: write_sealed(finetuning.run.workdir / CONFIG_FILE, recipe))
        trained = train_folds(finetuning, [name])
        if own:  # else it is counted as `finetune`
            seconds += sum(result["wall_time_sec"] for result in trained)

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        graded: list[Answers] = []
        told: list[Told] = []
        for number in finetuning.folds:
            with wall.during("evaluation"):
                said = curve.said(point, number)
            if finetuning.of_classes:
                graded.append(_grade(finetuning, number, said, folder / table_name(name, number)))
            if finetuning.main.kind != "class":
                told.append(finetuning.told_of(number, said.outputs))
                path = folder / told_name(name, number)
                on_main(lambda path=path, told=told[-1]: write_told(path, told))
        figures = Told.joined(told).metrics if told else {}
        shown = "".join(f"{key} {value:.3f}, " for key, value in figures.items()).removesuffix(", ")
        if graded:
            result = Answers.joined(graded).result
            figures, shown = figures | result.as_dict(), f"UA {100 * result.ua:.1f}"
        some = f"{point.per_class} clips a class" if point.per_class else f"{100 * point.share:g}% of the labels"
        log(f"{some}, draw {point.draw}, {name}: {shown}")
        counts = [finetuning.training_labels(number)[finetuning.main.name] for number in finetuning.folds]
        return figures | {"training_labels": counts}

    return seconds + curve.run.stage(point.stage, curve.recipe(point), work)["wall_time_sec"]


def _grade(finetuning: Finetuning, number: int, said: Said, table: Path) -> Answers:
    """What is right and wrong of a fold, written."""
    if said.outputs is None:
        answers, probabilities_NC = finetuning.answers(finetuning.graded(number).test, said.classes), None
    else:
        answers, probabilities_NC = finetuning.graded_answers(number, said.outputs)
    on_main(lambda: write_answers(table, answers, probabilities_NC))
    return answers


def answers_of(curves: Sequence[Curve], point: Point) -> list[Answers]:
    """Of every fold. curves: of one recipe on different folds."""
    return [
        read_answers(
            curve.run.workdir / point.stage / table_name(point.classifier, number), curve.whole.main.classes, MADE_BY
        )
        for curve in curves
        for number in curve.whole.folds
    ]


def told_of(curves: Sequence[Curve], point: Point) -> list[Told]:
    """Of every fold, of labels of a kind other than `class`."""
    return [
        read_told(curve.run.workdir / point.stage / told_name(point.classifier, number), curve.whole.main, MADE_BY)
        for curve in curves
        for number in curve.whole.folds
    ]
