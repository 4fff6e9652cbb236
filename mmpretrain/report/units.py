"""Units from few labels, as a table and in words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mmpretrain.report.comparisons import Table
from mmpretrain.report.tables import text_table

TITLES = {
    "pretrained": "pretrained, frozen", "finetuned": "fine-tuned", "scratch": "from scratch",
    "untrained": "untrained, frozen", "mfcc": "MFCC", "picture": "picture",
}  # fmt: skip
READING = (
    "errors in percent: the Levenshtein distance of the sequences without repeats and silence, over the units that are "
    "there; means over draws of the labelled clips, with 95% intervals over draws and what is resampled"
)


def units_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each kind of input and number of labelled clips, a column a classifier."""
    names = [name for name in TITLES if any(f"{name}_error" in entry for entry in entries)]
    columns = ["input, labelled clips", *(TITLES[name] for name in names), "scratch / pretrained"]
    rows = []
    for entry in entries:
        cells = [_figure(entry.get(f"{name}_error"), 100) for name in names]
        ratio = _figure(entry["times_the_errors"].get("scratch"), 1)
        rows.append([f"{entry['inputs']}, {entry['labelled_clips']}", *cells, ratio])
    return columns, rows


def units_line(entries: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """What the table is of."""
    clips, silence = about["clips"], f" (silence: {about['silence']})" if about["silence"] else ""
    return (
        f"{about['task']}, {len(about['classes'])} classes{silence}, {about['protocol']}, {clips['test']} test clips, "
        f"chosen on {clips['validation']} validation clips; {entries[0]['draws']} draws; resampled: "
        f"{about['resampled']}; {READING}; unlabelled_test_seen: {about['unlabelled_test_seen']}"
    )


def too_short_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which networks were best at their last step in most draws: they have not learned all they could."""
    lines = []
    for entry in entries:
        num_steps, draws = entry.get("num_steps", 0), entry["draws"]  # results of before do not say
        for name in ("scratch", "finetuned"):
            if 2 * (count := entry["chosen"].get(name, []).count(f"step {num_steps}")) > draws:
                lines.append(
                    f"{entry['inputs']}, {entry['labelled_clips']} labelled clips, {TITLES[name]}: the last of "
                    f"{num_steps} steps was chosen in {count} of {draws} draws, so that more would serve it; "
                    "see units.num_steps before its errors are compared with others'"
                )
    return lines


def error_by_clips(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, Mapping[str, float]]]]:
    """By classifier, as it is shown, its points: the number of labelled clips, and the error."""
    return {
        title: [(entry["labelled_clips"], entry[f"{name}_error"]) for entry in entries]
        for name, title in TITLES.items()
        if f"{name}_error" in entries[0]
    }


def render_units(entries: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Both, for the terminal; several lines without a trailing line end. about: the rest of the stage's result."""
    lines = [units_line(entries, about), *too_short_lines(entries)]
    wrapped = [textwrap.fill(line, 100, initial_indent="  ", subsequent_indent="    ") for line in lines]
    return "\n".join([text_table(units_table(entries)), *wrapped])


def _figure(figure: Mapping[str, float] | None, times: float) -> str:
    """E.g. 31.4 (28.0-34.9)."""
    if figure is None:
        return "-"
    mean, low, high = (times * figure[name] for name in ("mean", "low", "high"))
    digits = 1 if times > 1 else 2
    return f"{mean:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
