"""The figures of a report page, each drawn by one function into an SVG text.

All share one style: a muted palette, thin lines, names written at the lines instead of in a legend, no frame around.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

# Series take these in order: what came first, or is only compared to, is the paler one.
INK, MUTED, FAINT = "#22303c", "#6b7a86", "#dfe5ea"
PALETTE = ("#7f9cb3", "#245a85", "#c17c4e", "#5b8a72", "#8c6a93", "#a89244")
SHARE_COLOURS = ("#c17c4e", "#d9b38c", "#a89244", "#9db4c6", "#5b8a72", "#b0544d", "#cfd6dc", "#8c6a93")
HEAT = LinearSegmentedColormap.from_list("heat", ["#f7f9fb", "#b9cddc", "#5d8fb3", "#1f4e73"])

STYLE = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#aeb9c2",
    "axes.linewidth": 0.7,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.3,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.hashsalt": "mmpretrain",  # the same figure is the same text
}

Series = tuple[np.ndarray, np.ndarray]  # steps, values


def series(records: Sequence[Mapping[str, Any]], stage: str, name: str) -> Series:
    """Steps and values of one metric of one stage, in order of steps; empty where it was never written."""
    points = [(r["step"], r[name]) for r in records if r.get("stage") == stage and r.get(name) is not None]
    steps, values = zip(*sorted(points), strict=True) if points else ((), ())
    return np.array(steps, float), np.array(values, float)


def draw_curves(title: str, lines: Mapping[str, Sequence[tuple[Series, str]]]) -> str:
    """Metrics over steps, {line name: [(series, manner)]}; manner is "thin" (e.g. training) or "bold".

    A name is written at the end of its last series that has points. All but losses and rates are shares, in percent.
    """
    colours = _colours(list(lines))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 2.9), layout="constrained")
        axes = figure.subplots()
        ends = []
        for name, parts in lines.items():
            drawn = [(*points, manner == "bold") for points, manner in parts if len(points[0])]
            for steps, values, bold in drawn:
                axes.plot(
                    steps,
                    values,
                    color=colours[name],
                    linewidth=1.5 if bold else 0.8,
                    alpha=1 if bold else 0.55,
                    marker="o" if bold and len(steps) < 30 else None,
                    markersize=2.6,
                )
            if drawn:
                ends.append((name, drawn[-1][0][-1], drawn[-1][1][-1]))
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=(1, 2, 5, 10)))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
        if "loss" not in title and "per second" not in title:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
        _label_ends(axes, ends, colours)
        return svg(figure)


def draw_few_labels(
    lines: Mapping[str, Sequence[tuple[float, Mapping[str, float]]]],
    title: str,
    *,
    labels: str,
    write: Callable[[float], str],
    percent: bool = True,
) -> str:
    """A figure over how many labels there are, log axis, each point with its interval {"mean", "low", "high"}.

    labels: what their number is of; write: a number of them as it is shown. percent: the figure is shown in it.
    """
    colours = _colours(list(lines))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        ends, shares = [], sorted({share for points in lines.values() for share, _ in points})
        for number, (name, points) in enumerate(lines.items()):
            aside = 1.015 ** (number - len(lines) / 2)  # so that intervals do not cover each other
            x = np.array([share * aside for share, _ in points])
            mean, low, high = (
                (100 if percent else 1) * np.array([figure.get(key, figure["mean"]) for _, figure in points])
                for key in ("mean", "low", "high")
            )
            axes.plot(x, mean, color=colours[name], marker="o", markersize=3)
            axes.vlines(x, low, high, color=colours[name], linewidth=0.9, alpha=0.6)
            ends.append((name, x[-1], mean[-1]))
        axes.set_xscale("log")
        axes.set_xticks(shares, [write(share) for share in shares])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{'%' if percent else ''}")
        axes.set_xlabel(labels)
        axes.set_title(f"{title}, with 95% intervals")
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        _label_ends(axes, ends, colours)
        return svg(figure)


def draw_cluster_usage(cluster_counts: Sequence[np.ndarray]) -> str:
    """Share of all frames that each cluster has, largest cluster first, one line a round; log axis, no empty ones."""
    names = [f"round {number}" for number in range(1, len(cluster_counts) + 1)]
    colours = _colours(names)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 2.9), layout="constrained")
        axes = figure.subplots()
        ends = []
        for name, counts in zip(names, cluster_counts, strict=True):
            shares = np.sort(np.asarray(counts, float))[::-1] / max(np.sum(counts), 1)
            shares = 100 * shares[shares > 0]
            if len(shares):
                axes.plot(np.arange(1, len(shares) + 1), shares, color=colours[name])
                ends.append((name, len(shares), shares[-1]))
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
        axes.yaxis.set_minor_formatter("")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("clusters, from the largest")
        axes.set_title("share of frames")
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        _label_ends(axes, ends, colours)
        return svg(figure)


def draw_unit_tables(unit_tables: Sequence[np.ndarray | None]) -> str:
    """Per round, which share of each cluster's frames is which true unit; clusters are sorted by their main unit.

    unit_tables: counts [units, clusters], None for a round without. A clean diagonal staircase is a good codebook.
    """
    known = [(number, np.asarray(table, float)) for number, table in enumerate(unit_tables, 1) if table is not None]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 3.1), layout="constrained")
        all_axes = figure.subplots(1, len(known), squeeze=False, sharey=True)[0]
        for axes, (number, table) in zip(all_axes, known, strict=True):
            table = table[:, table.sum(0) > 0]
            shares = table / table.sum(0)
            order = np.lexsort((-shares.max(0), shares.argmax(0)))
            image = axes.imshow(
                shares[:, order], aspect="auto", cmap=HEAT, vmin=0, vmax=1, interpolation="nearest", rasterized=True
            )
            axes.set_title(f"round {number}")
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        all_axes[0].set_ylabel("true unit")
        figure.supxlabel("clusters, by their main unit", fontsize=9, color=MUTED)
        bar = figure.colorbar(image, ax=list(all_axes), fraction=0.02, pad=0.01, ticks=[0, 0.5, 1])
        bar.outline.set_visible(False)
        bar.ax.set_yticklabels(["0%", "50%", "100%"])
        return svg(figure)


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Counts as text; the shade is the share of the true class (row)."""
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 1.3 + 0.42 * len(classes)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(size + 0.5, size), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else INK
                axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(classes)), classes, rotation=40, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("answered", labelpad=6)
        axes.set_ylabel("true")
        axes.tick_params(length=0, labelcolor=INK)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        return svg(figure)


def draw_bars(values: Mapping[str, float], write: Callable[[float], str]) -> str:
    """Horizontal bars in the given order, each with its value written by `write` at its end."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.35 + 0.27 * len(values)), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(values), list(values.values()), height=0.62, color="#9db4c6")
        for position, value in enumerate(values.values()):
            axes.annotate(
                write(value), (value, position), (4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.margins(x=0.12)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelcolor=INK)
        axes.set_xticks([])
        return svg(figure)


def draw_shares(shares: Mapping[str, Mapping[str, float]]) -> str:
    """A bar for each of several wholes, {whole: {part: share}}, cut into their parts, whose names stand below.

    The first part, the one that should be long, is the darkest; parts below a thousandth everywhere are left out.
    """
    parts = [part for part in next(iter(shares.values())) if any(each[part] >= 0.001 for each in shares.values())]
    colours = dict(zip(parts, ("#245a85", *SHARE_COLOURS), strict=False))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 0.75 + 0.27 * len(shares)), layout="constrained")
        axes = figure.subplots()
        for row, each in enumerate(shares.values()):
            start = 0.0
            for part in parts:
                axes.barh(row, each[part], left=start, height=0.62, color=colours[part], label="" if row else part)
                if each[part] >= 0.05:
                    ink = "white" if part == parts[0] else INK
                    axes.text(start + each[part] / 2, row, f"{100 * each[part]:.0f}%", ha="center", va="center",
                              fontsize=8, color=ink)  # fmt: skip
                start += each[part]
        axes.set_yticks(range(len(shares)), list(shares))
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelcolor=INK)
        figure.legend(loc="outside lower center", ncols=len(parts), frameon=False, fontsize=8.5, handlelength=1)
        return svg(figure)


def _colours(names: Sequence[str]) -> dict[str, str]:
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, float]], colours: Mapping[str, str]) -> None:
    """Writes each name at its line's end, moved up or down where it would cover another or leave the axes."""
    axes.margins(x=0.02)
    axes.autoscale_view()
    to_fraction = axes.transData + axes.transAxes.inverted()
    places = sorted((*to_fraction.transform((end, value))[::-1], end, name) for name, end, value in ends)
    heights = [place[0] for place in places]
    line_height, wide = 0.085, 0.2

    def neighbours(i: int, others: range) -> list[float]:
        return [heights[k] for k in others if abs(places[k][1] - places[i][1]) < wide]

    for i in range(len(places)):
        heights[i] = max([heights[i], *(height + line_height for height in neighbours(i, range(i)))])
    for i in reversed(range(len(places))):
        above = neighbours(i, range(i + 1, len(places)))
        heights[i] = min([heights[i], 1.0, *(height - line_height for height in above)])
    for (_, _, end, name), height in zip(places, heights, strict=True):
        axes.annotate(
            name,
            (end, height),
            (6, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=colours[name],
            fontsize=8.5,
            va="center",
            annotation_clip=False,
        )


def svg(figure: Figure) -> str:
    """The text of a drawing."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
