"""How a task is learned from few labels, as a table and in words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from mmpretrain.report.comparisons import Table, marked
from mmpretrain.report.tables import text_table

TITLES = {
    "pretrained": "fine-tuned", "scratch": "from scratch", "frozen": "frozen", "untrained_frozen": "untrained, frozen",
    "sound_statistics": "MFCC statistics", "picture_statistics": "picture statistics",
}  # fmt: skip
READING = (
    "UA on test clips, the mean over draws of the labels and seeds, with 95% intervals over draws and speakers; frozen "
    "and statistics: logistic regression"
)


def label_efficiency_table(curve: Mapping[str, Any]) -> Table:
    """A row a share of the labels, a column a classifier: the mean and its interval in percent."""
    names = [name for name in TITLES if any(name in entry["classifiers"] for entry in curve["shares"])]
    rows = []
    for entry in curve["shares"]:
        figures = [entry["classifiers"][name]["ua"] for name in names]
        cells = (f"{100 * f['mean']:.1f} ({100 * f['low']:.1f}-{100 * f['high']:.1f})" for f in figures)
        rows.append([f"{100 * entry['label_share']:g}%", _some(entry["training_clips"]), *cells])
    return [marked("labels", curve), "clips", *(TITLES[name] for name in names)], rows


def _some(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low}-{high}"


def label_efficiency_lines(curve: Mapping[str, Any]) -> list[str]:
    """What the table is of, and the differences of each share."""
    lines = [
        f"{curve['protocol']}, folds {', '.join(map(str, curve['folds']))}, {curve['test_clips']} test clips; chance "
        f"{100 * curve['chance_ua']:.1f}; resampled: {curve['resampled']}; {READING}"
    ]
    for entry in curve["shares"]:
        parts = [
            f"{TITLES[d['first']]} over {TITLES[d['second']]} {100 * d['ua']['mean']:+.1f} "
            f"({100 * d['ua']['low']:+.1f} to {100 * d['ua']['high']:+.1f})"
            for d in entry["differences"]
        ]
        lines += [f"{100 * entry['label_share']:g}% of the labels, in points: {'; '.join(parts)}"] * bool(parts)
    return lines


def render_label_efficiency(curve: Mapping[str, Any]) -> str:
    """Both, for the terminal; several lines without a trailing line end."""
    indents = {"initial_indent": "  ", "subsequent_indent": "    "}
    lines = [textwrap.fill(line, 100, **indents) for line in label_efficiency_lines(curve)]
    return "\n".join([text_table(label_efficiency_table(curve)), *lines])


def flat(curve: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A summary's list: by share {NAME_ua: {"mean", "low", "high"}}."""
    return [
        {"label_share": entry["label_share"]}
        | {f"{name}_ua": figures["ua"] for name, figures in entry["classifiers"].items()}
        for entry in curve["shares"]
    ]


def ua_by_share(curve: Mapping[str, Any]) -> dict[str, list[tuple[float, Mapping[str, float]]]]:
    """By classifier, as it is shown, its points: the share of the labels, and UA."""
    return {
        title: [(e["label_share"], e["classifiers"][name]["ua"]) for e in curve["shares"] if name in e["classifiers"]]
        for name, title in TITLES.items()
        if any(name in entry["classifiers"] for entry in curve["shares"])
    }
