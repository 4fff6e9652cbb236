"""The page of a cross-validation: one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.report import charts
from mmpretrain.report.blocks import figure, html_table, section, write_page
from mmpretrain.report.crossval import Map, crossval_lines, crossval_table
from mmpretrain.report.few_labels import TITLES
from mmpretrain.report.scatter import draw_map, draw_recalls, draw_reliability, draw_said
from mmpretrain.report.tables import protocol_of


def write_crossval_page(
    path: Path,
    title: str,
    results: Mapping[str, Any],
    places: Map | None,
    said: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Writes the page, whole or not at all. said: by classifier, of labels that are numbers, some that are true, and
    what was said of them."""
    classifiers = {TITLES[name]: figures for name, figures in results["classifiers"].items()}
    sure = {name: figures["reliability"] for name, figures in classifiers.items() if "reliability" in figures}
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in crossval_lines(results))
    write_page(
        path, title, protocol_of(results),
        section("Results", "", html_table(crossval_table(results)), lines),
        *(_of_classes(results, classifiers) if "chance_ua" in results else ()),
        section(
            "Reliability", "How often the likeliest class is right, over how likely it is said to be; ECE: the mean "
            "distance of the two.", figure(draw_reliability(sure), "reliability diagram") if sure else "",
        ),
        section(
            "What was said", f"Over what is true of {results['task']}, some test clips or frames, the first seed; on "
            "the line the two are equal.",
            figure(draw_said({TITLES[name]: pair for name, pair in said.items()}), "said over true") if said else "",
        ),
        section(
            "Clips", "Test clips where t-SNE puts what the last layer of the frozen encoder says of them (mean and "
            f"deviation over the clip; {'untrained' if places and places.of == 'scratch' else 'pretrained'}). What is "
            "near is alike; distances between groups mean little.",
            f'<div class="pair">{_maps(places, results["task"])}</div>' if places is not None else "",
        ),
    )  # fmt: skip


def _of_classes(results: Mapping[str, Any], classifiers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    recalls = {name: figures["recalls"] for name, figures in classifiers.items()}
    confusions = [
        f"<div><h3>{html.escape(name)}</h3>"
        + figure(charts.draw_confusion(figures["confusion"], results["classes"]), f"confusion matrix, {name}")
        + "</div>"
        for name, figures in classifiers.items()
    ]
    return [
        section(
            "Recalls", "Of each class, the mean over seeds, with 95% intervals over seeds and speakers.",
            figure(draw_recalls(recalls, results["classes"]), "recalls by class"),
        ),
        section("Answers", "Of all seeds; rows are true classes.", f'<div class="pair">{"".join(confusions)}</div>'),
    ]  # fmt: skip


def _maps(places: Map, task: str) -> str:
    found = {what: labels for what, labels in ((task, places.labels), ("speaker", places.speakers)) if len(labels)}
    return "".join(
        f"<div><h3>By {what}</h3>{figure(draw_map(places.places_N2, labels), f'clips by {what}')}</div>"
        for what, labels in found.items()
    )
