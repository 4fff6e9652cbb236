"""The points of a curve measured: trained, if they are not, and tested on every fold, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpretrain.config import as_dict
from mmpretrain.evaluation.comparison import Answers
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.checking import check_folds
from mmpretrain.run.curve import TRAINED, Curve, Point
from mmpretrain.run.exposure import check_exposure
from mmpretrain.run.layout import CONFIG_FILE
from mmpretrain.run.predictions import read_answers, table_name, write_answers
from mmpretrain.run.sealed import write_sealed
from mmpretrain.stages.finetune import train_folds


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
        of_folds = []
        for number in finetuning.folds:
            with wall.during("evaluation"):
                said, probabilities_NC = curve.said(point, number)
            answers = finetuning.answers(finetuning.fold(number).test, said)
            table = folder / table_name(name, number)
            on_main(lambda table=table, answers=answers, p=probabilities_NC: write_answers(table, answers, p))
            of_folds.append(answers)
        figures = Answers.joined(of_folds).result
        log(f"{100 * point.share:g}% of the labels, draw {point.draw}, {name}: UA {100 * figures.ua:.1f}")
        counts = [finetuning.training_labels(number)[finetuning.main.name] for number in finetuning.folds]
        return figures.as_dict() | {"training_labels": counts}

    return seconds + curve.run.stage(point.stage, curve.recipe(point), work)["wall_time_sec"]


def answers_of(curves: Sequence[Curve], point: Point) -> list[Answers]:
    """Of every fold. curves: of one recipe on different folds."""
    return [
        read_answers(
            curve.run.workdir / point.stage / table_name(point.classifier, number),
            curve.whole.main.classes,
            "label-efficiency",
        )
        for curve in curves
        for number in curve.whole.folds
    ]
