"""Stage `label_efficiency`: how well a task is learned from few labels, with the encoder and without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.downstream.checking import lacks
from mmpretrain.downstream.curve import FROZEN, TRAINED, Curve, Point
from mmpretrain.downstream.exposure import as_result, exposure_of_fold, pooled_exposure
from mmpretrain.evaluation.comparison import Answers, resampled_units
from mmpretrain.evaluation.draws import differences_over_draws, figures_over_draws
from mmpretrain.evaluation.told import Told
from mmpretrain.files import write_json
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.few_labels import render_label_efficiency
from mmpretrain.run.command import ACCEPT_CHANGES, Command
from mmpretrain.run.layout import LABEL_EFFICIENCY, fold_name
from mmpretrain.run.run import Run
from mmpretrain.run.sealed import write_sealed
from mmpretrain.run.stage import RESULT_FILE, read_result
from mmpretrain.stages.points import answers_of, measure_curve, told_of

FIGURE = "ccc"  # that is shown of numbers; of classes it is UA
# Of which the differences are shown, where both are there.
PAIRS = (
    ("pretrained", "scratch"), ("pretrained", "frozen"), ("frozen", "untrained_frozen"),
    ("frozen", "sound_statistics"), ("frozen", "picture_statistics"),
)  # fmt: skip


def label_efficiency(run: Run) -> dict[str, Any]:
    """Trains and tests every classifier on every share, draw and fold, passing over what is done."""
    curve = Curve(run)
    seconds = measure_curve(curve)
    result = on_main(lambda: figures_of_curve([curve]) | {"wall_time_sec": seconds})
    on_main(lambda: write_sealed(run.workdir / LABEL_EFFICIENCY / RESULT_FILE, result))
    on_main(lambda: write_json(run.workdir / f"{LABEL_EFFICIENCY}.json", result))
    log(f"{LABEL_EFFICIENCY}: {run.workdir / LABEL_EFFICIENCY}.json\n{render_label_efficiency(result)}")
    return result


def figures_of_curve(curves: Sequence[Curve]) -> dict[str, Any]:
    """What the points of a curve answered, ready for JSON: by share every classifier's figures over all folds, and
    how far they are apart.

    curves: one, or several of one recipe on other folds.
    """
    first, wholes = curves[0], [curve.whole for curve in curves]
    folds = [(whole, number) for whole in wholes for number in whole.folds]
    names = [name for name in first.classifiers if all(name in curve.classifiers for curve in curves)]
    seen = {
        variant: as_result(pooled_exposure([exposure_of_fold(whole, variant, number) for whole, number in folds]))
        for variant in TRAINED
        if any(FROZEN.get(name, name) == variant for name in names)
    }
    shares, some, whole = [], None, first.whole
    figure = "ua" if whole.of_classes else FIGURE
    for share in sorted(first.asked.shares):
        draws = {name: [_tested(curves, point) for point in first.points_of(share, name)] for name in names}
        some = draws[names[0]][0]
        learned = [curve.finetuning(curve.points_of(share, names[0])[0]) for curve in curves]
        shares.append(
            {
                "label_share": share,
                "training_clips": [len(each.fold(number).train) for each in learned for number in each.folds],
                "classifiers": {
                    name: {
                        "draws": len(each), **figures_over_draws(each),
                        f"{figure}_by_draw": [_value(one, figure) for one in each],
                        **(_steps(curves, first.points_of(share, name)) if name in TRAINED else {}),
                    }
                    for name, each in draws.items()
                },
                "differences": [
                    {"first": one, "second": other, **differences_over_draws(draws[one], draws[other])}
                    for one, other in PAIRS
                    if one in draws and other in draws
                ],
            }
        )  # fmt: skip
    return {
        "task": whole.main.name, "figure": figure, "selection": whole.config.selection,
        "classes": list(whole.main.classes), "protocol": whole.protocol_title,
        "protocol_lacks": lacks(*wholes), "folds": [number for _, number in folds],
        "seed": first.run.config.seed, "test_clips": len(some.clip_ids),
        **({"chance_ua": some.result.chance_ua} if isinstance(some, Answers) else {}),
        "resampled": resampled_units(some.clip_ids, some.speakers)[1], "exposure": seen, "shares": shares,
    }  # fmt: skip


def _tested(curves: Sequence[Curve], point: Point) -> Answers | Told:
    """What a point said of the test clips of all folds: of classes what is right and wrong."""
    if curves[0].whole.of_classes:
        return Answers.joined(answers_of(curves, point))
    return Told.joined(told_of(curves, point))


def _steps(curves: Sequence[Curve], points: Sequence[Point]) -> dict[str, Any]:
    """Which steps were chosen of a classifier that was trained by steps: of each draw and fold."""
    trained = [curve.finetuning(point) for point in points for curve in curves]
    if any(each.frozen for each in trained):
        return {}
    variant = points[0].classifier
    results = [read_result(each.run.workdir, fold_name(variant, number)) for each in trained for number in each.folds]
    return {"num_steps": trained[0].config.num_steps, "chosen_steps": [result["step"] for result in results]}


def _value(tested: Answers | Told, figure: str) -> float:
    return tested.result.ua if isinstance(tested, Answers) else tested.metrics[figure]


COMMAND = Command(
    "label-efficiency",
    "how well a task is learned from few labels, with the encoder and without it",
    lambda given: label_efficiency(given.begin()),
    options=(ACCEPT_CHANGES,),
    examples=("mmpretrain label-efficiency --config=demo --config.label_efficiency.shares='(0.25, 1.0)'",),
)
