"""The results of a cross-validation, as a table for the terminal and as a page that needs nothing beside it."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpretrain.files import write_text
from mmpretrain.report import charts
from mmpretrain.report.blocks import figure, html_table, section
from mmpretrain.report.comparisons import Table, marked
from mmpretrain.report.few_labels import TITLES
from mmpretrain.report.scatter import draw_map, draw_recalls, draw_reliability
from mmpretrain.report.style import PAGE_STYLE
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


def write_crossval_page(path: Path, title: str, results: Mapping[str, Any], places: Map | None) -> None:
    """Writes the page, whole or not at all."""
    classifiers = {TITLES[name]: figures for name, figures in results["classifiers"].items()}
    recalls = {name: figures["recalls"] for name, figures in classifiers.items()}
    sure = {name: figures["reliability"] for name, figures in classifiers.items() if "reliability" in figures}
    confusions = [
        f"<div><h3>{html.escape(name)}</h3>"
        + figure(charts.draw_confusion(figures["confusion"], results["classes"]), f"confusion matrix, {name}")
        + "</div>"
        for name, figures in classifiers.items()
    ]
    maps = ""
    if places is not None:
        maps = "".join(
            f"<div><h3>By {what}</h3>{figure(draw_map(places.places_N2, words), f'clips by {what}')}</div>"
            for what, words in ((results["task"], places.classes), ("speaker", places.speakers))
        )
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in crossval_lines(results))
    parts = [
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(results['protocol'])}</p></header>",
        section("Results", "", html_table(crossval_table(results)), lines),
        section(
            "Recalls", "Of each class, the mean over seeds, with 95% intervals over seeds and speakers.",
            figure(draw_recalls(recalls, results["classes"]), "recalls by class"),
        ),
        section("Answers", "Of all seeds; rows are true classes.", f'<div class="pair">{"".join(confusions)}</div>'),
        section(
            "Reliability", "How often the likeliest class is right, over how likely it is said to be; ECE: the mean "
            "distance of the two.", figure(draw_reliability(sure), "reliability diagram") if sure else "",
        ),
        section(
            "Clips", "Test clips where t-SNE puts what the last layer of the frozen encoder says of them (mean and "
            f"deviation over the clip; {'untrained' if places and places.of == 'scratch' else 'pretrained'}). What is "
            "near is alike; distances between groups mean little.",
            f'<div class="pair">{maps}</div>' if maps else "",
        ),
    ]  # fmt: skip
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n"
    )
    write_text(path, head + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n")
