"""How classifiers hold out under changed clips, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.report.comparisons import NAMES, SHORT, Table, interval_text, marked
from mmpretrain.report.tables import percent, protocol_line, text_table


def robustness_table(results: Mapping[str, Any]) -> Table:
    """A row a level of a change, UA and its interval of each classifier."""
    names = list(results["clean"])
    columns = [marked("clips", results), *(cell for name in names for cell in (f"UA, {SHORT[name]}", "95%"))]

    def row(title: str, classifiers: Mapping[str, Any]) -> list[str]:
        cells = ((percent(classifiers[name]["ua"]), interval_text(classifiers[name])) for name in names)
        return [title, *(cell for pair in cells for cell in pair)]

    rows = [row("as they are", results["clean"])]
    for change in results["changes"]:
        for entry in change["levels"]:
            level = entry["level"] if isinstance(entry["level"], str) else f"{entry['level']:g}"
            rows.append(row(f"{change['change']}: {level or 'none'} {change['unit']}".rstrip(), entry["classifiers"]))
    return columns, rows


def shapley_lines(results: Mapping[str, Any]) -> list[str]:
    """What each modality brings, one sentence a classifier."""
    return [
        f"{NAMES[name]}, Shapley's shares of UA: "
        + ", ".join(f"{modality} {100 * share:+.1f}" for modality, share in shares.items())
        for name, shares in results["shapley"].items()
    ]


def render_robustness(results: Mapping[str, Any]) -> str:
    """For the terminal; several lines without a trailing line end."""
    about = ("protocol", "selection", "protocol_lacks", "folds")
    line = protocol_line({"evaluation": {name: results[name] for name in about}})
    return "\n".join([text_table(robustness_table(results)), f"  {line}", *shapley_lines(results)])
