"""Drawings of what single clips and classes come to: recalls, reliability, and clips in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmpretrain.report.charts import FAINT, INK, MUTED, PALETTE, STYLE, svg

SEVERAL = matplotlib.colormaps["tab20"]


def draw_recalls(recalls: Mapping[str, Mapping[str, Mapping[str, float]]], classes: Sequence[str]) -> str:
    """By classifier and class {"mean", "low", "high"}: a point with its interval each, classes along the axis."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for i, (name, of_classes) in enumerate(recalls.items()):
            at = [k for k, word in enumerate(classes) if word in of_classes]
            found = [of_classes[classes[k]] for k in at]
            mean = np.array([100 * f["mean"] for f in found])
            reach = np.abs(np.array([[100 * f[side] for f in found] for side in ("low", "high")]) - mean)
            offset = 0.7 * ((i + 0.5) / len(recalls) - 0.5)
            colour = PALETTE[i % len(PALETTE)]
            axes.errorbar(np.array(at) + offset, mean, reach, fmt="o", markersize=4, color=colour, label=name)
        axes.axhline(100 / len(classes), color=MUTED, linewidth=0.7, linestyle=":")
        axes.set_xticks(range(len(classes)), classes)
        axes.set_ylim(0, 100)
        axes.set_ylabel("recall, %")
        figure.legend(loc="outside lower center", ncols=min(6, len(recalls)), frameon=False, fontsize=8.5)
        return svg(figure)


def draw_reliability(found: Mapping[str, Mapping[str, Any]]) -> str:
    """By classifier what `evaluation.calibration.reliability` says, beside the diagonal of one as sure as right."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1)
        for i, (name, of_one) in enumerate(found.items()):
            x, y = ([100 * one[field] for one in of_one["bins"]] for field in ("confidence", "accuracy"))
            label = f"{name}: ECE {100 * of_one['ece']:.1f}"
            axes.plot(x, y, marker="o", markersize=3.5, color=PALETTE[i % len(PALETTE)], label=label)
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="how likely it is said to be, %", ylabel="right, %")
        axes.legend(frameon=False, fontsize=8)
        return svg(figure)


def draw_said(said: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """By classifier, side by side, a point for each label that is a number: what is true, and what was said."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(said), 2.8), layout="constrained")
        of_all = figure.subplots(1, len(said), sharex=True, sharey=True, squeeze=False)[0]
        for i, (axes, (name, (true_N, said_N))) in enumerate(zip(of_all, said.items(), strict=True)):
            axes.axline((0, 0), slope=1, color=FAINT, linewidth=1)
            axes.scatter(true_N, said_N, s=5, color=PALETTE[i % len(PALETTE)], linewidths=0, alpha=0.5)
            axes.set(title=name, xlabel="true")
        of_all[0].set_ylabel("said")
        return svg(figure)


def draw_map(places_N2: np.ndarray, labels: Sequence[str] | np.ndarray) -> str:
    """A point a clip, in the colour of its word or its number."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        if isinstance(labels, np.ndarray):
            points = axes.scatter(*places_N2.T, s=7, c=labels, cmap="viridis", linewidths=0)
            figure.colorbar(points, ax=axes, location="bottom", shrink=0.6)
        else:
            _draw_words(figure, axes, places_N2, labels)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        return svg(figure)


def _draw_words(figure: Figure, axes: Axes, places_N2: np.ndarray, words: Sequence[str]) -> None:
    kinds = sorted(set(words))
    for i, kind in enumerate(kinds):
        own = [n for n, word in enumerate(words) if word == kind]
        colour = PALETTE[i] if len(kinds) <= len(PALETTE) else SEVERAL(i % 20)
        axes.scatter(*places_N2[own].T, s=7, color=colour, label=kind or "nobody known", linewidths=0)
    columns = min(6, len(kinds))
    figure.legend(
        loc="outside lower center", ncols=columns, frameon=False, fontsize=7.5, markerscale=1.8, labelcolor=INK
    )
