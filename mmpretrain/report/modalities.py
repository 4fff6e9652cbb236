"""What each modality brings: test figures with some of them shown, and what gates and fitted weights make of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmpretrain.report.comparisons import Table
from mmpretrain.report.tables import text_table
from mmpretrain.report.tasks import TITLES, figure_text

SHOWN = "With some modalities shown"
READING = {
    SHOWN: "Figures of all test clips, with 95% intervals by resampling speakers. A clip that has none of what is "
    "shown is answered all the same.",
    "shares": "Shapley's shares: what the figure grows by when a modality joins, the mean over all orders. They add up "
    "to the figure with all less that with nothing shown.",
    "gates": "Mean gates over the test clips that have two streams or more, by class.",
    "weights": "Of late fusion, fitted on the validation clips of each fold.",
}  # fmt: skip


def modality_tables(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, Table]]:
    """Title, how it is to be read, and the table. summary: its part `modalities`, as stage `report` makes it."""
    if cells := summary.get("table"):
        yield SHOWN, READING[SHOWN], _cells(cells)
    for variant, of_figures in (summary.get("shares") or {}).items():
        names = list(next(iter(of_figures.values()), ()))
        rows = [[figure, *(f"{shares[name]:+.3f}" for name in names)] for figure, shares in of_figures.items()]
        if rows:
            yield f"What each modality brings, {TITLES[variant]}", READING["shares"], (["", *names], rows)
    for variant, of_tasks in (summary.get("gates") or {}).items():
        for task, of_classes in of_tasks.items():
            streams = [name for name in next(iter(of_classes.values())) if name != "clips"]
            rows = [
                [name, str(means["clips"]), *(f"{means[stream]:.3f}" for stream in streams)]
                for name, means in of_classes.items()
            ]
            yield f"Gates of {task}, {TITLES[variant]}", READING["gates"], (["class", "clips", *streams], rows)
    for variant, of_folds in (summary.get("weights") or {}).items():
        for task in next(iter(of_folds.values())):
            names = list(next(iter(of_folds.values()))[task])
            rows = [
                [f"fold {fold}", *(f"{of_tasks[task][name]:.3f}" for name in names)]
                for fold, of_tasks in of_folds.items()
            ]
            yield f"Weights of {task}, {TITLES[variant]}", READING["weights"], (["", *names], rows)


def _cells(cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """A row a choice of modalities; columns: of each task its first metric, of each classifier."""
    figures = next(iter(next(iter(cells.values())).values()))
    firsts: dict[str, str] = {}
    for name in figures:
        task, _, metric = name.partition("/")
        if metric != "loss":
            firsts.setdefault(task, name)
    variants = [variant for variant in TITLES if variant in cells]
    columns = ["shown", *(f"{name}, {TITLES[variant]}" for name in firsts.values() for variant in variants)]
    rows = [
        [shown, *(figure_text(cells[variant][shown].get(name)) for name in firsts.values() for variant in variants)]
        for shown in cells[variants[0]]
    ]
    return columns, rows


def render_modalities(summary: Mapping[str, Any]) -> str:
    """For the terminal; "" where there is nothing to be shown."""
    return "\n\n".join(
        f"{title}\n{text_table(table)}\n  {reading}" for title, reading, table in modality_tables(summary)
    )
