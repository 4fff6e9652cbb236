"""The page of how classifiers hold out: one plot of all changes, and the table."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmpretrain.report.blocks import figure, html_table, section, write_page
from mmpretrain.report.charts import FAINT, MUTED, PALETTE, STYLE, svg
from mmpretrain.report.comparisons import SHORT
from mmpretrain.report.robustness import robustness_table, shapley_lines
from mmpretrain.report.tables import protocol_of

ACROSS = 3


def draw_robustness(results: Mapping[str, Any]) -> str:
    """UA over the levels of each change, with 95% intervals; dashed: the clips as they are; dotted: chance."""
    changes, names = results["changes"], list(results["clean"])
    down = -(-len(changes) // ACROSS)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(9.2, 0.5 + 2.5 * down), layout="constrained")
        places = drawn.subplots(down, ACROSS, squeeze=False).ravel()
        for axes, change in zip(places, changes, strict=False):
            at = np.arange(len(change["levels"]))
            for i, name in enumerate(names):
                found = [entry["classifiers"][name] for entry in change["levels"]]
                ua = 100 * np.array([figures["ua"] for figures in found])
                sides = [[100 * figures["intervals"]["ua"][side] for figures in found] for side in ("low", "high")]
                colour = PALETTE[i]
                axes.errorbar(at + 0.08 * i, ua, np.abs(np.array(sides) - ua), color=colour, marker="o", markersize=3,
                              linewidth=1, label=SHORT[name])  # fmt: skip
                axes.axhline(100 * results["clean"][name]["ua"], color=colour, linewidth=0.8, linestyle="--")
            axes.axhline(100 * results["chance_ua"], color=MUTED, linewidth=0.7, linestyle=":")
            levels = [entry["level"] for entry in change["levels"]]
            axes.set_xticks(at, [(level or "none") if isinstance(level, str) else f"{level:g}" for level in levels])
            axes.set_title(f"{change['change']}" + f", {change['unit']}" * bool(change["unit"]))
            axes.set_ylim(0, 100)
            axes.grid(axis="y", color=FAINT, linewidth=0.6)
        for axes in places[len(changes) :]:
            axes.set_visible(False)
        drawn.legend(
            *places[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False
        )
        return svg(drawn)


def write_robustness_page(path: Path, title: str, results: Mapping[str, Any]) -> None:
    """Writes the page, whole or not at all."""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in shapley_lines(results))
    explanation = "UA on test clips, with 95% intervals over speakers. Dashed: clips as they are; dotted: chance."
    write_page(
        path, title, protocol_of(results),
        section("Robustness", explanation, figure(draw_robustness(results), "UA under changes"), lines),
        section("Figures", "", html_table(robustness_table(results))),
    )  # fmt: skip
