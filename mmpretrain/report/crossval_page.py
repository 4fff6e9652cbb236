"""The page of a cross-validation: one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpretrain.report import charts
from mmpretrain.report.blocks import figure, html_table, section, write_page
from mmpretrain.report.crossval import Map, crossval_lines, crossval_table
from mmpretrain.report.few_labels import TITLES
from mmpretrain.report.scatter import draw_map, draw_recalls, draw_reliability


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
    write_page(
        path, title, results["protocol"],
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
    )  # fmt: skip
