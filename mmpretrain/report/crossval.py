"""The results of a cross-validation, as a table and in words."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmpretrain.report.comparisons import Table, marked
from mmpretrain.report.few_labels import TITLES
from mmpretrain.report.tables import TEST_SEEN, protocol_line, text_table

READING = (
    "Figures are means over seeds of those over all test clips, with 95% intervals over seeds and speakers; +- is the "
    "deviation over folds and seeds. Intervals know of other clips, speakers and seeds of fine-tuning, not of another "
    "pretraining."
)
# Of kinds of labels that have more figures than one class a clip, or others: as they are called, in order.
METRICS = {
    "ccc": "CCC", "pearson": "Pearson", "mae": "MAE", "rmse": "RMSE", "auc": "AUC", "qwk": "weighted kappa",
    "macro_f1": "macro F1", "accuracy": "accuracy",
}  # fmt: skip
OF_CLASSES = {"ua": "UA", "wa": "WA", "wf1": "WF1", "macro_f1": "macro F1"}


class Map(NamedTuple):
    """Clips in the plane: places float [N, 2], and of each its class or number, if it has one, and who speaks.

    of: the encoder's kind.
    """

    places_N2: np.ndarray
    labels: Sequence[str] | np.ndarray
    speakers: Sequence[str]
    of: str


def crossval_table(results: Mapping[str, Any]) -> Table:
    """A row a classifier, what cannot hear or see first."""
    names, graded = list(results["classifiers"]), "chance_ua" in results
    others = other_metrics(results)
    first = "ua" if graded else next(iter(others))
    columns = [marked("classifier", results), "seeds", *(OF_CLASSES.values() if graded else ())]
    columns += [*others.values(), f"{(OF_CLASSES | METRICS)[first]} by fold"]
    constant = [f"{results['constant'][name]:.3f}" for name in others]
    chance = [_percent(results["chance_ua"]), _percent(results["majority_wa"]), "", ""] if graded else []
    rows = [["chance, majority class" if graded else "one answer to all", "", *chance, *constant, ""]]
    for name in sorted(names, key=list(TITLES).index, reverse=True):
        figures = results["classifiers"][name]
        cells = [_cell(figures[metric], _percent, "-") for metric in OF_CLASSES] if graded else []
        cells += [_cell(figures["metrics"][metric], _number, " to ") for metric in others]
        over = (figures if graded else figures["metrics"][first])["over_folds_and_seeds"]
        spread = (
            f"{_percent(over['ua']['mean'])} +- {_percent(over['ua']['std'])}"
            if graded
            else (f"{_number(over['mean'])} +- {_number(over['std'])}")
        )
        rows.append([TITLES[name], str(figures["seeds"]), *cells, spread])
    return columns, rows


def other_metrics(results: Mapping[str, Any]) -> dict[str, str]:
    """Those beside UA and its like that all classifiers have, as they are called."""
    of_all = [figures.get("metrics", {}) for figures in results["classifiers"].values()]
    graded = "chance_ua" in results
    return {
        name: title
        for name, title in METRICS.items()
        if all(name in figures for figures in of_all) and not (graded and name in OF_CLASSES)
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _cell(figure: Mapping[str, float], text: Callable[[float], str], between: str) -> str:
    if "low" not in figure:
        return text(figure["mean"])
    return f"{text(figure['mean'])} ({text(figure['low'])}{between}{text(figure['high'])})"


def crossval_lines(results: Mapping[str, Any]) -> list[str]:
    """What the table is of, and how far the classifiers are apart."""
    lines = [
        f"{protocol_line({'evaluation': _as_evaluation(results)})}; {results['test_clips']} test clips; resampled: "
        f"{results['resampled']}. {READING}"
    ]
    for difference in results["differences"]:
        pair = f"{TITLES[difference['first']]} over {TITLES[difference['second']]}"
        if "chance_ua" in results:
            ua = difference["ua"]
            lines.append(
                f"{pair}: UA {100 * ua['mean']:+.1f} points ({100 * ua['low']:+.1f} to {100 * ua['high']:+.1f}), "
                f"{apart(ua)}"
            )
        told = [
            f"{title} {found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}), {apart(found)}"
            for name, title in other_metrics(results).items()
            for found in [difference[name]]
            if "low" in found
        ]
        lines += [f"{pair}: {'; '.join(told)}"] if told else []
    seen = {TITLES[name]: figures[TEST_SEEN] for name, figures in results["classifiers"].items()}
    return [*lines, f"{TEST_SEEN}: " + "; ".join(f"{name}: {text}" for name, text in seen.items())]


def apart(difference: Mapping[str, float]) -> str:
    """In words, whether an interval leaves 0 out."""
    return "told apart" if difference["low"] > 0 or difference["high"] < 0 else "not told apart"


def _as_evaluation(results: Mapping[str, Any]) -> dict[str, Any]:
    names = ("protocol", "selection", "protocol_lacks", "folds")
    return {name: results[name] for name in names}


def render_crossval(results: Mapping[str, Any]) -> str:
    """For the terminal; several lines without a trailing line end."""
    indents = {"initial_indent": "  ", "subsequent_indent": "    "}
    lines = [textwrap.fill(line, 116, **indents) for line in crossval_lines(results)]
    return "\n".join([text_table(crossval_table(results)), *lines])
