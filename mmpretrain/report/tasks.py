"""What the heads of all tasks say of the test clips, as a table: a row a metric, a column a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.report.comparisons import Table
from mmpretrain.report.tables import text_table

TITLES = {"pretrained": "pretrained", "scratch": "from scratch"}
READING = (
    "of all test clips together, with 95% intervals by resampling speakers; where there are several folds, mean and "
    "standard deviation over them behind it"
)


def tasks_table(of_tasks: Mapping[str, Mapping[str, Any]], main: str = "") -> Table:
    """of_tasks: of a result of `evaluate`. main: the task whose figures are shown elsewhere; "": none is."""
    names = [name for name in next(iter(of_tasks.values())) if name.partition("/")[0] != main]
    variants = [variant for variant in TITLES if variant in of_tasks]
    rows = [[name, *(figure_text(of_tasks[variant].get(name)) for variant in variants)] for name in names]
    return ["task/metric", *(TITLES[variant] for variant in variants)], rows


def render_tasks(of_tasks: Mapping[str, Mapping[str, Any]], main: str = "") -> str:
    """For the terminal; "" where there is nothing to be shown."""
    table = tasks_table(of_tasks, main)
    return f"{text_table(table)}\n  {READING}" if table[1] else ""


def figure_text(figure: Mapping[str, Any] | None) -> str:
    """The figure of all test clips, its interval, and mean and deviation over folds, as far as they are there."""
    if figure is None:
        return "-"
    interval = f" [{figure['low']:.3f} to {figure['high']:.3f}]" if "low" in figure else ""
    several = len(figure["folds"]) > 1 and figure["mean"] is not None
    spread = f" ({figure['mean']:.3f} +- {figure['std']:.3f})" if several else ""
    return f"{figure['pooled']:.3f}{interval}{spread}"
