"""Command `crossval`: every classifier on all folds of the recipe with several seeds; one table, one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.config import LabelEfficiencyConfig, as_dict
from mmpretrain.downstream.checking import lacks
from mmpretrain.downstream.curve import FROZEN, TRAINED, Curve, Point
from mmpretrain.downstream.exposure import as_result, exposure_of_fold, pooled_exposure
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.frozen import Frozen
from mmpretrain.downstream.predictions import read_probabilities, table_name
from mmpretrain.evaluation.baselines import constant_outputs
from mmpretrain.evaluation.calibration import reliability
from mmpretrain.evaluation.comparison import Answers, resampled_units
from mmpretrain.evaluation.draws import differences_over_draws, figures_over_draws, recalls_over_draws
from mmpretrain.evaluation.metrics import METRICS
from mmpretrain.evaluation.told import WITHOUT, Told
from mmpretrain.files import write_json
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.crossval import Map, render_crossval
from mmpretrain.run.command import ACCEPT_CHANGES, Command, Given, Option
from mmpretrain.run.layout import PRETRAINED, RESULTS_FILE, SCRATCH
from mmpretrain.run.run import Run
from mmpretrain.stages.points import answers_of, measure_curve, told_of

SEEDS = 3
MAPPED_CLIPS = 2_000  # at most, of the first fold's test clips on
PAGE_FILE = "crossval.html"


def crossval(run: Run, seeds: int = SEEDS, *, by_fold: bool = False) -> dict[str, Any]:
    """Trains and tests every classifier on every fold with every seed, passing over what is done.

    Where the recipe learns from a share of the labels, or from some clips of each class, seeds differ in these too.
    by_fold: from the encoders that `folds` left, each pretrained without the speakers of its fold. Raises ValueError
    where the recipe's first task has no figures to resample, and what finetuning raises.
    """
    part = run.config.finetune
    if part is not None and part.tasks[0].kind in WITHOUT:
        raise ValueError(
            f"finetune.tasks[0].kind={part.tasks[0].kind!r}: crossval is of labels whose figures have intervals; put "
            "another task first, or use `mmpretrain units` (of frames), `mmpretrain evaluate`"
        )
    runs = list(Finetuning(run).runs_of_folds().values()) if by_fold else [run]
    per_class = 0 if part is None else part.labels_per_class
    curves = [Curve(each, _asked(each, seeds), per_class) for each in runs]
    seconds = sum(measure_curve(curve) for curve in curves)
    results = on_main(lambda: results_of(curves, run.workdir) | {"by_fold": by_fold, "wall_time_sec": seconds})
    places = _map_of_clips(curves[0])

    def write() -> None:
        from mmpretrain.report.crossval_page import write_crossval_page  # brings matplotlib

        write_json(run.workdir / RESULTS_FILE, results)
        write_crossval_page(run.workdir / PAGE_FILE, run.workdir.name, results, places, _said_of_true(curves))

    on_main(write)
    log(f"crossval: {run.workdir / RESULTS_FILE}, {run.workdir / PAGE_FILE}\n{render_crossval(results)}")
    return results


def _asked(run: Run, seeds: int) -> LabelEfficiencyConfig:
    share = run.config.finetune.label_share if run.config.finetune is not None else 1.0
    return dataclasses.replace(run.config.label_efficiency, shares=(share,), draws=seeds)


def results_of(curves: Sequence[Curve], root: Path) -> dict[str, Any]:
    """What is in `results.json`: every classifier's figures over all folds and seeds, and how far they are apart.

    curves: one, or several of one recipe on other folds. root: the folder that the paths of `tables` begin at.
    """
    first, wholes = curves[0], [curve.whole for curve in curves]
    (share,), whole = first.asked.shares, curves[0].whole
    folds = [(each, number) for each in wholes for number in each.folds]
    names = [name for name in first.classifiers if all(name in curve.classifiers for curve in curves)]
    points = {name: first.points_of(share, name) for name in names}
    # By the kind of what is counted, by classifier and seed, what was said of all folds' test clips.
    pooled: list[dict[str, list[Any]]] = []
    figures: dict[str, dict[str, Any]] = {
        name: {"seeds": len(points[name]), "tables": _tables(curves, points[name], root)} for name in names
    }
    chance: dict[str, Any] = {}
    if whole.main.kind != "class":
        told = {name: [told_of(curves, point) for point in points[name]] for name in names}
        pooled.append({name: [Told.joined(of_seed) for of_seed in told[name]] for name in names})
        for name in names:
            figures[name]["metrics"] = _metrics(pooled[-1][name], told[name])
        chance["constant"] = _constant(folds)
    if whole.of_classes:
        graded = {name: [answers_of(curves, point) for point in points[name]] for name in names}
        pooled.append({name: [Answers.joined(of_seed) for of_seed in graded[name]] for name in names})
        for name in names:
            figures[name] |= _figures(pooled[-1][name], graded[name]) | _sureness(curves, points[name])
        result = pooled[-1][names[0]][0].result
        chance |= {"chance_ua": result.chance_ua, "majority_wa": result.majority_wa}
    some = pooled[0][names[0]][0]
    return {
        "task": whole.main.name, "about": as_dict(whole.main), "classes": list(whole.main.classes),
        "corpus": whole.table.corpus,
        "protocol": whole.protocol_title,
        "selection": whole.config.selection, "protocol_lacks": lacks(*wholes),
        "modalities": list(first.whole.modalities), "label_share": share,
        "labels_per_class": first.per_class,
        "folds": [number for _, number in folds], "seed": first.run.config.seed,
        "test_clips": len(some.clip_ids), **chance,
        "resampled": resampled_units(some.clip_ids, some.speakers)[1],
        "classifiers": {name: figures[name] | _seen(curves, name) for name in names},
        "differences": [
            {"first": one, "second": other}
            | {k: v for each in pooled for k, v in differences_over_draws(each[one], each[other]).items()}
            for i, one in enumerate(names)
            for other in names[i + 1 :]
        ],
    }  # fmt: skip


def _tables(curves: Sequence[Curve], points: Sequence[Point], root: Path) -> list[dict[str, str]]:
    """Of every seed by fold, the path of the table of answers, with what else there is of a fold beside it."""
    return [
        {
            str(number): str((curve.run.workdir / point.stage / table_name(point.classifier, number)).relative_to(root))
            for curve in curves
            for number in curve.whole.folds
        }
        for point in points
    ]


def _spread(values: Sequence[Sequence[float]]) -> dict[str, float]:
    """Of seeds and folds."""
    of_all = np.array(values)
    return {"mean": float(of_all.mean()), "std": float(of_all.std(ddof=1)) if of_all.size > 1 else 0.0}


def _metrics(pooled: Sequence[Told], said: Sequence[Sequence[Told]]) -> dict[str, dict[str, Any]]:
    """By metric of the kind of labels, beside its interval, of every seed, of every fold of each, and of all these."""
    of_seeds, found = [told.metrics for told in pooled], {}
    for name, figure in figures_over_draws(pooled).items():
        of_folds = [[told.metrics.get(name) for told in of_seed] for of_seed in said]
        found[name] = figure | {"by_seed": [of[name] for of in of_seeds], "by_fold": of_folds}
        if all(value is not None for values in of_folds for value in values):
            found[name]["over_folds_and_seeds"] = _spread(of_folds)
    return found


def _constant(folds: Sequence[tuple[Finetuning, int]]) -> dict[str, float]:
    """By metric, that of one answer to all test clips of a fold: what its training labels are on average."""
    told = []
    for whole, number in folds:
        labels, fold = whole.labels[whole.main.name], whole.fold(number)
        outputs = constant_outputs(labels[fold.train], labels[fold.test], whole.main)
        told.append(whole.told_of(number, outputs))
    return Told.joined(told).metrics


def _figures(pooled: Sequence[Answers], said: Sequence[Sequence[Answers]]) -> dict[str, Any]:
    of_folds = [[answers.result for answers in of_seed] for of_seed in said]
    return {
        **figures_over_draws(pooled),
        "by_seed": {metric: [getattr(answers.result, metric) for answers in pooled] for metric in METRICS},
        "over_folds_and_seeds": {
            metric: _spread([[getattr(result, metric) for result in of_seed] for of_seed in of_folds])
            for metric in METRICS
        },
        "ua_by_fold": [[result.ua for result in of_seed] for of_seed in of_folds],
        "recalls": recalls_over_draws(pooled),
        "confusion": sum(answers.result.confusion for answers in pooled).tolist(),
    }  # fmt: skip


def _seen(curves: Sequence[Curve], name: str) -> dict[str, Any]:
    variant = FROZEN.get(name, name)
    variant = variant if variant in TRAINED else SCRATCH
    exposures = [exposure_of_fold(c.whole, variant, number) for c in curves for number in c.whole.folds]
    return as_result(pooled_exposure(exposures))


def _sureness(curves: Sequence[Curve], points: Sequence[Point]) -> dict[str, Any]:
    """Of all folds and seeds together; nothing where a classifier does not say how sure it is."""
    said, labels = [], []
    for point in points:
        for curve in curves:
            folder = curve.run.workdir / point.stage
            tables = [folder / table_name(point.classifier, number) for number in curve.whole.folds]
            said += [read_probabilities(table, curve.whole.main.classes) for table in tables]
        labels += [answers.labels_N for answers in answers_of(curves, point)]
    if any(probabilities is None for probabilities in said):
        return {}
    return {"reliability": reliability(np.concatenate(said), np.concatenate(labels))}


def _map_of_clips(curve: Curve) -> Map | None:
    """Where t-SNE puts what the last layer of the frozen encoder says of test clips. All processes ask together."""
    whole = curve.whole
    rows = np.concatenate([whole.fold(number).test for number in whole.folds])[:MAPPED_CLIPS]
    if len(rows) < 5:
        return None
    variant = SCRATCH if whole.config.encoder == "none" else PRETRAINED
    features_ND = Frozen(whole).features(variant, rows)
    last_ND = features_ND.reshape(len(rows), -1, 2 * whole.model(variant).width)[:, -1]

    def place() -> list[list[float]]:
        from sklearn.manifold import TSNE  # slow to import
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        perplexity = min(30.0, (len(rows) - 1) / 3)
        with threadpool_limits(limits=1):
            scaled = StandardScaler().fit_transform(last_ND)
            return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(scaled).tolist()

    speakers = [whole.table.speakers[row] for row in rows]
    return Map(np.array(on_main(place)), _labels_of(whole, rows), speakers, variant)


def _labels_of(whole: Finetuning, rows: np.ndarray) -> Sequence[str] | np.ndarray:
    """Of the main task: a word for each row, or a number, of frames their mean; nothing of several classes a clip."""
    if whole.of_classes:
        return [whole.main.classes[i] if i >= 0 else "" for i in whole.classes_N[rows]]
    if whole.main.classes:
        return ()
    return np.nanmean(whole.labels[whole.main.name][rows].reshape(len(rows), -1), axis=1)


def _said_of_true(curves: Sequence[Curve]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By classifier, where labels are numbers, some of the tested, and what was said of them with the first seed."""
    main, (share,) = curves[0].whole.main, curves[0].asked.shares
    if main.classes:
        return {}
    found, (low, high) = {}, main.range
    for name in curves[0].classifiers:
        told = Told.joined(told_of(curves, curves[0].points_of(share, name)[0]))
        known = ~np.isnan(told.labels)
        true, said = told.labels[known], ((high - low) * told.outputs[..., 0][known] + low + high) / 2
        some = np.linspace(0, len(true) - 1, min(len(true), MAPPED_CLIPS)).astype(int)
        found[name] = (true[some], said[some])
    return found


def _command(given: Given) -> None:
    crossval(given.begin(), given["seeds"] or SEEDS, by_fold=bool(given["by_fold"]))


COMMAND = Command(
    "crossval",
    "every classifier on all folds with several seeds: one table, results.json, a page",
    _command,
    options=(
        Option("seeds", int, f"how many seeds of training (default: {SEEDS})", "N", lower=1),
        Option("by_fold", bool, "from the encoders that `mmpretrain folds` pretrained, one for each fold"),
        ACCEPT_CHANGES,
    ),
    examples=("mmpretrain crossval --config=ravdess --by_fold --seeds=3",),
    details=(
        "The classifiers are those of label_efficiency.classifiers, and what is trained is what the curve of label "
        "efficiency has at all labels, so that neither does anything twice. One program serves all folds and seeds; a "
        "run that is stopped goes on where it was. Figures are in WORKDIR/results.json, with the page crossval.html: "
        "recalls with intervals, reliability, and a map of the clips by class and by speaker; of numbers what was said "
        "over what is true. Labels may be of every kind but `frames` and `embedding`.",
    ),
)
