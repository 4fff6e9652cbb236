"""The results of a cross-validation, as a table and in words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmpretrain.report.comparisons import Table, marked
from mmpretrain.report.few_labels import TITLES
from mmpretrain.report.tables import TEST_SEEN, protocol_line, text_table

READING = (
    "UA, WA, WF1 and macro F1 are means over seeds of the figures over all test clips, with 95% intervals over seeds "
    "and speakers; +- is the deviation over folds and seeds. Intervals know of other clips, speakers and seeds of "
    "fine-tuning, not of another pretraining."
)


class Map(NamedTuple):
    """Clips in the plane: places float [N, 2], and of each its class and who speaks. of: the encoder's kind."""

    places_N2: np.ndarray
    classes: Sequence[str]
    speakers: Sequence[str]
    of: str


def crossval_table(results: Mapping[str, Any]) -> Table:
    """A row a classifier, what cannot hear or see first."""
    columns = [marked("classifier", results), "seeds", "UA", "WA", "WF1", "macro F1", "UA by fold"]
    chance = [f"{100 * results['chance_ua']:.1f}", f"{100 * results['majority_wa']:.1f}"]
    rows = [["chance, majority class", "", *chance, "", "", ""]]
    for name in sorted(results["classifiers"], key=list(TITLES).index, reverse=True):
        figures = results["classifiers"][name]
        cells = (
            f"{100 * f['mean']:.1f} ({100 * f['low']:.1f}-{100 * f['high']:.1f})"
            for f in (figures[metric] for metric in ("ua", "wa", "wf1", "macro_f1"))
        )
        over = figures["over_folds_and_seeds"]["ua"]
        rows.append(
            [TITLES[name], str(figures["seeds"]), *cells, f"{100 * over['mean']:.1f} +- {100 * over['std']:.1f}"]
        )
    return columns, rows


def crossval_lines(results: Mapping[str, Any]) -> list[str]:
    """What the table is of, and how far the classifiers are apart."""
    lines = [
        f"{protocol_line({'evaluation': _as_evaluation(results)})}; {results['test_clips']} test clips; resampled: "
        f"{results['resampled']}. {READING}"
    ]
    for d in results["differences"]:
        ua, apart = d["ua"], "told apart" if d["ua"]["low"] > 0 or d["ua"]["high"] < 0 else "not told apart"
        lines.append(
            f"{TITLES[d['first']]} over {TITLES[d['second']]}: UA {100 * ua['mean']:+.1f} points "
            f"({100 * ua['low']:+.1f} to {100 * ua['high']:+.1f}), {apart}"
        )
    seen = {TITLES[name]: figures[TEST_SEEN] for name, figures in results["classifiers"].items()}
    return [*lines, f"{TEST_SEEN}: " + "; ".join(f"{name}: {text}" for name, text in seen.items())]


def _as_evaluation(results: Mapping[str, Any]) -> dict[str, Any]:
    names = ("protocol", "selection", "protocol_lacks", "folds")
    return {name: results[name] for name in names}


def render_crossval(results: Mapping[str, Any]) -> str:
    """For the terminal; several lines without a trailing line end."""
    indents = {"initial_indent": "  ", "subsequent_indent": "    "}
    lines = [textwrap.fill(line, 116, **indents) for line in crossval_lines(results)]
    return "\n".join([text_table(crossval_table(results)), *lines])
