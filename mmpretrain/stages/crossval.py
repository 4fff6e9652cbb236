"""Command `crossval`: every classifier on all folds of the recipe with several seeds; one table, one page."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpretrain.evaluation.calibration import reliability
from mmpretrain.evaluation.comparison import Answers, units_of
from mmpretrain.evaluation.draws import differences_over_draws, figures_over_draws, recalls_over_draws
from mmpretrain.evaluation.metrics import METRICS
from mmpretrain.files import write_json
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.crossval import Map, render_crossval
from mmpretrain.run.checking import lacks
from mmpretrain.run.command import ACCEPT_CHANGES, Command, Given, Option
from mmpretrain.run.curve import FROZEN, TRAINED, Curve, Point
from mmpretrain.run.exposure import as_result, exposure_of_fold, pooled_exposure
from mmpretrain.run.folds import config_of_fold
from mmpretrain.run.frozen import Frozen
from mmpretrain.run.layout import PRETRAINED, SCRATCH
from mmpretrain.run.predictions import read_probabilities, table_name
from mmpretrain.run.run import Run
from mmpretrain.stages.points import answers_of, measure_curve

SEEDS = 3
MAPPED_CLIPS = 2_000  # at most, of the first fold's test clips on
RESULTS_FILE, PAGE_FILE = "results.json", "crossval.html"


def crossval(run: Run, seeds: int = SEEDS, *, by_fold: bool = False) -> dict[str, Any]:
    """Trains and tests every classifier on every fold with every seed, passing over what is done.

    by_fold: from the encoders that `folds` left, each pretrained without the speakers of its fold. Raises ValueError
    where the recipe learns from a number of clips of each class, and what finetuning raises.
    """
    if run.config.finetune is not None and run.config.finetune.labels_per_class:
        raise ValueError(
            f"finetune.labels_per_class={run.config.finetune.labels_per_class}: crossval learns from all labels, or a "
            "share of them (finetune.label_share)"
        )
    curves = [Curve(each) for each in (_runs_of_folds(run, seeds) if by_fold else [_with_seeds(run, seeds)])]
    seconds = sum(measure_curve(curve) for curve in curves)
    results = on_main(lambda: results_of(curves) | {"by_fold": by_fold, "wall_time_sec": seconds})
    places = _map_of_clips(curves[0])

    def write() -> None:
        from mmpretrain.report.crossval_page import write_crossval_page  # brings matplotlib

        write_json(run.workdir / RESULTS_FILE, results)
        write_crossval_page(run.workdir / PAGE_FILE, run.workdir.name, results, places)

    on_main(write)
    log(f"crossval: {run.workdir / RESULTS_FILE}, {run.workdir / PAGE_FILE}\n{render_crossval(results)}")
    return results


def _with_seeds(run: Run, seeds: int) -> Run:
    config = copy.deepcopy(run.config)
    share = config.finetune.label_share if config.finetune is not None else 1.0
    config.label_efficiency = dataclasses.replace(config.label_efficiency, shares=(share,), draws=seeds)
    return run.with_config(config)


def _runs_of_folds(run: Run, seeds: int) -> list[Run]:
    whole = Curve(_with_seeds(run, seeds)).whole
    return [_with_seeds(run.with_config(config_of_fold(run.config, number)), seeds) for number in whole.folds]


def results_of(curves: Sequence[Curve]) -> dict[str, Any]:
    """What is in `results.json`: every classifier's figures over all folds and seeds, and how far they are apart.

    curves: one, or several of one recipe on other folds.
    """
    first, wholes = curves[0], [curve.whole for curve in curves]
    (share,), whole = first.asked.shares, curves[0].whole
    folds = [(each, number) for each in wholes for number in each.folds]
    names = [name for name in first.classifiers if all(name in curve.classifiers for curve in curves)]
    said = {  # by classifier, seed and fold
        name: [answers_of(curves, Point(share, seed, name)) for seed in range(first.draws(share, name))]
        for name in names
    }
    pooled = {name: [Answers.joined(of_seed) for of_seed in of_seeds] for name, of_seeds in said.items()}
    some = next(iter(pooled.values()))[0]
    return {
        "task": whole.main.name, "classes": list(whole.main.classes), "protocol": whole.protocol_title,
        "selection": whole.config.selection, "protocol_lacks": "; ".join(filter(None, map(lacks, wholes))),
        "modalities": list(first.run.config.model.modalities), "label_share": share,
        "folds": [number for _, number in folds], "seed": first.run.config.seed,
        "test_clips": len(some.clip_ids), "chance_ua": some.result.chance_ua, "majority_wa": some.result.majority_wa,
        "resampled": units_of(some)[1],
        "classifiers": {
            name: _figures(pooled[name], said[name]) | _seen(curves, name) | _sureness(curves, share, name)
            for name in names
        },
        "differences": [
            {"first": one, "second": other, **differences_over_draws(pooled[one], pooled[other])}
            for i, one in enumerate(names)
            for other in names[i + 1 :]
        ],
    }  # fmt: skip


def _figures(pooled: Sequence[Answers], said: Sequence[Sequence[Answers]]) -> dict[str, Any]:
    of_folds = [[answers.result for answers in of_seed] for of_seed in said]

    def spread(metric: str) -> dict[str, float]:
        values = np.array([[getattr(result, metric) for result in of_seed] for of_seed in of_folds])
        return {"mean": float(values.mean()), "std": float(values.std(ddof=1)) if values.size > 1 else 0.0}

    return {
        "seeds": len(pooled), **figures_over_draws(pooled),
        "by_seed": {metric: [getattr(answers.result, metric) for answers in pooled] for metric in METRICS},
        "over_folds_and_seeds": {metric: spread(metric) for metric in METRICS},
        "ua_by_fold": [[result.ua for result in of_seed] for of_seed in of_folds],
        "recalls": recalls_over_draws(pooled),
        "confusion": sum(answers.result.confusion for answers in pooled).tolist(),
    }  # fmt: skip


def _seen(curves: Sequence[Curve], name: str) -> dict[str, Any]:
    variant = FROZEN.get(name, name)
    variant = variant if variant in TRAINED else SCRATCH
    exposures = [exposure_of_fold(c.whole, variant, number) for c in curves for number in c.whole.folds]
    return as_result(pooled_exposure(exposures))


def _sureness(curves: Sequence[Curve], share: float, name: str) -> dict[str, Any]:
    """Of all folds and seeds together; nothing where a classifier does not say how sure it is."""
    said, labels = [], []
    for seed in range(curves[0].draws(share, name)):
        point = Point(share, seed, name)
        for curve in curves:
            tables = [curve.run.workdir / point.stage / table_name(name, number) for number in curve.whole.folds]
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

    classes = whole.main.classes
    words = [classes[i] for i in whole.labels[whole.main.name][rows]]
    return Map(np.array(on_main(place)), words, [whole.table.speakers[row] for row in rows], variant)


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
    examples=("mmpretrain crossval --config=configs/finetune/ravdess.py --by_fold --seeds=3",),
    details=(
        "The classifiers are those of label_efficiency.classifiers, and what is trained is what the curve of label "
        "efficiency has at all labels, so that neither does anything twice. One program serves all folds and seeds; a "
        "run that is stopped goes on where it was. Figures are in WORKDIR/results.json, with the page crossval.html: "
        "recalls with intervals, reliability, and a map of the clips by class and by speaker.",
    ),
)
