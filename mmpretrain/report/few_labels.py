"""How a task is learned from few labels, as a table and in words."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from mmpretrain.report.comparisons import Table, marked
from mmpretrain.report.tables import protocol_of, text_table

TITLES = {
    "pretrained": "fine-tuned", "scratch": "from scratch", "frozen": "frozen", "untrained_frozen": "untrained, frozen",
    "sound_statistics": "MFCC statistics", "picture_statistics": "picture statistics",
}  # fmt: skip
READING = (
    "{} on test clips, the mean over draws of the labels and seeds, with 95% intervals over draws and speakers; frozen "
    "and statistics: {} regression"
)


def label_efficiency_table(curve: Mapping[str, Any]) -> Table:
    """A row a share of the labels, a column a classifier: the mean and its interval."""
    names = [name for name in TITLES if any(name in entry["classifiers"] for entry in curve["shares"])]
    rows = []
    for entry in curve["shares"]:
        cells = [_cell(entry["classifiers"][name][figure_of(curve)], figure_of(curve)) for name in names]
        rows.append([f"{100 * entry['label_share']:g}%", _some(entry["training_clips"]), *cells])
    return [marked("labels", curve), "clips", *(TITLES[name] for name in names)], rows


def figure_of(curve: Mapping[str, Any]) -> str:
    """Which figure of each classifier is shown; curves that do not say so are of classes."""
    return curve.get("figure", "ua")


def title_of(curve: Mapping[str, Any]) -> str:
    """As it is called."""
    return figure_of(curve).upper()


def _cell(figure: Mapping[str, float], name: str) -> str:
    """The mean and its interval: UA in percent."""
    if name == "ua":
        return f"{100 * figure['mean']:.1f} ({100 * figure['low']:.1f}-{100 * figure['high']:.1f})"
    around = f" ({figure['low']:.3f} to {figure['high']:.3f})" if "low" in figure else ""
    return f"{figure['mean']:.3f}{around}"


def _difference(figure: Mapping[str, float], name: str) -> str:
    times, digits = (100, 1) if name == "ua" else (1, 3)
    low, mean, high = (f"{times * figure.get(key, math.nan):+.{digits}f}" for key in ("low", "mean", "high"))
    return f"{mean} ({low} to {high})" if "low" in figure else mean


def _some(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low}-{high}"


def label_efficiency_lines(curve: Mapping[str, Any]) -> list[str]:
    """What the table is of, and the differences of each share."""
    chance = f"chance {100 * curve['chance_ua']:.1f}; " if "chance_ua" in curve else ""
    of_classes, name = "chance_ua" in curve, figure_of(curve)
    reading = READING.format(title_of(curve), "logistic" if of_classes else "ridge")
    lines = [
        f"{protocol_of(curve)}, folds {', '.join(map(str, curve['folds']))}, {curve['test_clips']} test clips; {chance}"
        f"resampled: {curve['resampled']}; {reading}"
    ]
    for entry in curve["shares"]:
        parts = [
            f"{TITLES[d['first']]} over {TITLES[d['second']]} {_difference(d[name], name)}"
            for d in entry["differences"]
        ]
        share = f"{100 * entry['label_share']:g}% of the labels, in {'points' if name == 'ua' else title_of(curve)}"
        lines += [f"{share}: {'; '.join(parts)}"] * bool(parts)
        lines += _step_lines(f"{100 * entry['label_share']:g}% of the labels", entry["classifiers"])
    return lines


def _step_lines(share: str, classifiers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which classifiers are mostly as they began, or were best at their last step: neither was trained to its end."""
    lines = []
    for name, figures in classifiers.items():
        steps, num_steps = figures.get("chosen_steps", []), figures.get("num_steps", 0)
        for step, meaning in (
            (0, "the classifier that it begins with, not what training makes of it"),
            (num_steps, "not yet all that it could learn; see finetune.num_steps"),
        ):
            if 2 * (count := steps.count(step)) > len(steps):
                lines.append(
                    f"{share}, {TITLES[name]}: step {step} of {num_steps} was chosen in {count} of {len(steps)} "
                    f"trainings: {meaning}"
                )
    return lines


def render_label_efficiency(curve: Mapping[str, Any]) -> str:
    """Both, for the terminal; several lines without a trailing line end."""
    indents = {"initial_indent": "  ", "subsequent_indent": "    "}
    lines = [textwrap.fill(line, 100, **indents) for line in label_efficiency_lines(curve)]
    return "\n".join([text_table(label_efficiency_table(curve)), *lines])


def flat(curve: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A summary's list: by share {NAME_ua: {"mean", "low", "high"}}, of numbers NAME_ccc."""
    figure = figure_of(curve)
    return [
        {"label_share": entry["label_share"]}
        | {f"{name}_{figure}": figures[figure] for name, figures in entry["classifiers"].items()}
        for entry in curve["shares"]
    ]


def figure_by_share(curve: Mapping[str, Any]) -> dict[str, list[tuple[float, Mapping[str, float]]]]:
    """By classifier, as it is shown, its points: the share of the labels, and UA or CCC."""
    figure = figure_of(curve)
    return {
        title: [(e["label_share"], e["classifiers"][name][figure]) for e in curve["shares"] if name in e["classifiers"]]
        for name, title in TITLES.items()
        if any(name in entry["classifiers"] for entry in curve["shares"])
    }
