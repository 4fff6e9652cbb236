"""The tables of a run's `summary.json`, as cells for the report page and as text for the terminal.

Parts that a run did not reach, or that are unknown for its corpus, are left out or shown as "-".
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmpretrain.report.comparisons import (
    NAMES,
    READING,
    SHORT,
    Table,
    blind_lines,
    comparison_lines,
    fold_comparisons,
    interval_text,
    marked,
)

NOTHING = "-"
TEST_SEEN = "unlabelled_test_seen"

# Known of AV-HuBERT Base (an independent re-run): a landmark, not a limit.
REFERENCE = (
    "AV-HuBERT Base on LRS3 (433 h, 100 clusters) has 42.5% masked accuracy in round 1 and 62.7% in round 2; figures "
    "of other clips, or of other numbers of clusters, do not compare"
)


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}%"


def duration(seconds: float) -> str:
    """E.g. 12.3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def round_table(summary: Mapping[str, Any]) -> Table:
    """Accuracies and loss are on validation clips; chance is of always answering the commonest cluster there.

    Beside the probe of the round's encoder stands that of the untrained one.
    """
    columns = ["round", "masked", "unmasked", "chance", "loss", "PNMI", "purity", "clusters", "entropy"]
    columns += ["probe UA", "untrained"]

    def number(value: float | None, digits: int, unit: str = "") -> str:
        return NOTHING if value is None else f"{value:.{digits}f}{unit}"

    entries = []
    for entry in summary.get("rounds") or ():
        position, several = entry["round"], enumerate(entry.get("codebooks") or (), start=1)
        entries += [(f"{position}, codebook {i}", entry | codebook) for i, codebook in several] or [(position, entry)]
    rows = []
    for position, entry in entries:
        used, clusters = entry.get("clusters_used"), entry.get("num_clusters")
        rows.append(
            [
                str(position),
                percent(entry.get("masked_accuracy")),
                percent(entry.get("unmasked_accuracy")),
                percent(entry.get("chance_accuracy")),
                number(entry.get("loss"), 3),
                number(entry.get("pnmi"), 3),
                number(entry.get("purity"), 3),
                NOTHING if used is None else f"{used} / {clusters}",
                number(entry.get("entropy_bits"), 2, " bits"),
                percent((entry.get("probe") or {}).get("ua")),
                percent(entry.get("untrained_probe_ua")),
            ]
        )
    return columns, rows


def render_health(rounds: Sequence[Mapping[str, Any]]) -> str:
    """The figures of rounds, of which the last has just ended, what changed in it, and what they may be held against.

    rounds: entries of a summary's `rounds`, at least one. Several lines without a trailing line end.
    """
    last = rounds[-1]
    lines = [f"round {last['round']}: health", text_table(round_table({"rounds": rounds}))]
    if len(rounds) > 1:
        before = rounds[-2]
        changes = []
        for name, figures, unit in (
            ("masked accuracy", [entry.get("masked_accuracy") for entry in (before, last)], "points"),
            ("PNMI", [entry.get("pnmi") for entry in (before, last)], ""),
            ("probe UA", [(entry.get("probe") or {}).get("ua") for entry in (before, last)], "points"),
        ):
            if None not in figures:
                change = figures[1] - figures[0]
                changes.append(f"{name} {100 * change:+.1f} {unit}" if unit else f"{name} {change:+.3f}")
        lines.append(f"  against round {before['round']}: {', '.join(changes) or 'nothing to compare'}")
        if before.get("num_clusters") != last.get("num_clusters"):
            lines.append("  (accuracies over different numbers of clusters do not compare)")
    lines += map(_wrapped, gain_lines([last]))
    if probe := last.get("probe"):
        lines.append(_wrapped(probe_line(probe)))
    lines.append(_wrapped(f"for comparison: {REFERENCE}"))
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ")


def gain_lines(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of every round with a probe: whether its encoder surely tells more than the untrained one, or less."""
    lines = []
    for entry in rounds:
        if probe := entry.get("probe"):
            gain, number, before = probe["over_untrained"], entry["round"], percent(entry["untrained_probe_ua"])
            says = f"round {number} has no sure gain over the untrained encoder"
            if gain["low"] > 0:
                says = f"round {number} tells more than the untrained encoder"
            elif gain["high"] < 0:
                says = f"round {number} tells less than the untrained encoder"
            points, low, high = (f"{100 * gain[name]:+.1f}" for name in ("difference", "low", "high"))
            lines.append(
                f"{says}: probe UA {percent(probe['ua'])} against {before}, {points} points (95% interval {low} to "
                f"{high}; the same {probe['clips']} validation clips, resampled: {gain['resampled']})"
            )
    return lines


def probe_line(probe: Mapping[str, Any]) -> str:
    """What the probe's figures are of."""

    def of_layers(figures: Mapping[str, Any]) -> str:
        return f"{', '.join(percent(ua) for ua in figures['ua_by_layer'])} (chosen: layer {figures['layer']})"

    return (
        f"probe: frozen layers, mean and deviation over time, logistic regression; {probe['protocol']}, fold "
        f"{probe['fold']}, {probe['training_clips']} training and {probe['clips']} validation clips; by layer from 0 "
        f"{of_layers(probe)}; untrained {of_layers(probe['untrained'])}; the layer is chosen on training clips; "
        f"chance {percent(probe['chance_ua'])}; "
        f"unlabelled_validation_seen: {probe.get('unlabelled_validation_seen', NOTHING)}"
    )


def evaluation_table(summary: Mapping[str, Any]) -> Table:
    """What cannot hear or see, the plain baselines, the same network from random weights, and ours.

    Where they are known, with the 95% intervals of UA and WA.
    """
    columns = [marked("classifier", summary.get("evaluation") or {}), "UA", "WA", "WF1", "macro F1"]
    classifiers = _classifiers(summary)
    known = any(interval_text(scores) for _, scores in classifiers)
    columns += ["UA, 95%", "WA, 95%"] * known

    def shown(scores: Mapping[str, Any]) -> list[str]:
        return [interval_text(scores, metric) or NOTHING for metric in ("ua", "wa")] * known

    return columns, [[name, *_scores(scores), *shown(scores)] for name, scores in classifiers]


def ours(summary: Mapping[str, Any]) -> str:
    """Which of ours the result is of: "pretrained", or "scratch" where no other was trained."""
    result = summary.get("evaluation") or {}
    return "scratch" if "scratch" in result and "pretrained" not in result else "pretrained"


def _classifiers(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    result = summary.get("evaluation") or {}
    chance = {"ua": result.get("chance_ua"), "wa": result.get("majority_wa")}
    names = NAMES
    if result.get("classifier") == "frozen_linear":
        frozen = "encoder, frozen, logistic regression"
        names = NAMES | {"scratch": f"untrained {frozen}", "pretrained": f"pretrained {frozen}"}
    results = [
        ("chance, majority class", chance),
        (NAMES["baseline"], result.get("baseline") or {"ua": result.get("baseline_ua")}),
        (NAMES["picture_baseline"], result.get("picture_baseline") or {}),
        (names["scratch"], result.get("from_scratch") or {"ua": result.get("from_scratch_ua")}),
        (names["pretrained"], result if ours(summary) == "pretrained" else {}),
    ]
    return [(name, scores) for name, scores in results if scores.get("ua") is not None]


def exposure_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of each classifier, and of ours in each fold where there are several: how much of its test clips had been seen.

    `no`, or counts of clips and speakers; see `data.exposure.Exposure`.
    """
    folds = [fold for fold in (summary.get("evaluation") or {}).get("folds") or () if isinstance(fold, Mapping)]
    figures = [*_classifiers(summary), *[(f"fold {fold.get('fold')}", fold) for fold in folds] * (len(folds) > 1)]
    return [f"{name}: {TEST_SEEN}: {scores[TEST_SEEN]}" for name, scores in figures if TEST_SEEN in scores]


def told_apart_lines(summary: Mapping[str, Any]) -> list[str]:
    """Ours against each other classifier over all folds, and how these lines and all intervals are to be read."""
    lines = comparison_lines((summary.get("evaluation") or {}).get("comparisons") or ())
    return [*lines, *blind_lines(summary), READING] if lines else []


def task_title(summary: Mapping[str, Any]) -> str:
    """The task that the evaluation is of, as a heading."""
    return str((summary.get("evaluation") or {}).get("task", "labelled clips")).capitalize()


def fold_table(summary: Mapping[str, Any]) -> Table:
    """Our result in each fold that the summary has figures of, and their mean and spread."""
    return _by_fold(summary, {"ua": "UA", "wa": "WA", "wf1": "WF1", "macro_f1": "macro F1"})


def fold_ua_table(summary: Mapping[str, Any]) -> Table:
    """Likewise the UA of every classifier; nothing where there is one fold, or those of the others are not known."""
    folds = [fold for fold in (summary.get("evaluation") or {}).get("folds") or () if isinstance(fold, Mapping)]
    columns = {f"{name}_ua": SHORT[name] for name in SHORT if any(f"{name}_ua" in fold for fold in folds)}
    return _by_fold(summary, columns | {"ua": SHORT[ours(summary)]}) if columns and len(folds) > 1 else ([], [])


def _by_fold(summary: Mapping[str, Any], columns: Mapping[str, str]) -> Table:
    """columns: by figure of a fold, the name of its column."""
    folds = [fold for fold in (summary.get("evaluation") or {}).get("folds") or () if isinstance(fold, Mapping)]
    rows = [
        [str(fold.get("fold", position)), *(percent(fold.get(metric)) for metric in columns)]
        for position, fold in enumerate(folds, start=1)
    ]
    if len(folds) > 1:
        spread = []
        for metric in columns:
            values = [fold[metric] for fold in folds if fold.get(metric) is not None]
            some = len(values) > 1
            spread.append(f"{percent(np.mean(values))} +- {100 * np.std(values, ddof=1):.1f}" if some else NOTHING)
        rows.append(["mean +- std", *spread])
    return [marked("fold", summary.get("evaluation") or {}), *columns.values()], rows


def speed_table(records: Sequence[Mapping[str, Any]], goodput: Mapping[str, Mapping[str, float]]) -> Table:
    """How fast each training stage went: medians over its records; memory: the largest; goodput: when it ended."""
    columns = ["stage", "step", "frames/s", "hours an hour", "input wait", "MFU", "memory", "goodput"]
    rows = []
    for stage in dict.fromkeys(record.get("stage") for record in records):
        own = [record for record in records if record.get("stage") == stage and "throughput/frames_per_sec" in record]
        if not own:
            continue

        def middle(name: str, own=own) -> float | None:
            values = [record[name] for record in own if record.get(name) is not None]
            return float(np.median(values)) if values else None

        peaks = [value for record in own for name, value in record.items() if name.startswith("memory/")]
        hours, step_sec = middle("throughput/audio_hours_per_hour"), middle("time/step_sec")
        rows.append(
            [
                str(stage),
                f"{1000 * step_sec:,.0f} ms",
                f"{middle('throughput/frames_per_sec'):,.0f}",
                NOTHING if hours is None else f"{hours:,.0f}",
                percent(middle("time/input_wait_sec") / step_sec),
                percent(middle("throughput/mfu")),
                f"{max(peaks) / 1e9:.2f} GB" if peaks else NOTHING,
                percent((goodput.get(stage) or {}).get("useful_steps")),
            ]
        )
    return columns, rows


# By `FinetuneConfig.selection`.
CHOSEN = {
    "val": "validation", "last": "nothing (the last step)", "test-best": "THE TEST CLIPS",
}  # fmt: skip


def protocol_of(result: Mapping[str, Any]) -> str:
    """The name of its protocol and, where the result is not of all of it, what it lacks."""
    return ", not all of it: ".join(filter(None, (result["protocol"], result.get("protocol_lacks"))))


def protocol_line(summary: Mapping[str, Any]) -> str:
    result = summary.get("evaluation") or {}
    parts = []
    if result.get("protocol"):
        parts.append(f"protocol {protocol_of(result)}")
    if result.get("selection"):
        parts.append(f"model chosen on: {CHOSEN.get(result['selection'], result['selection'])}")
    few, share = result.get("labels_per_class", 0), result.get("label_share", 1)
    if few or share < 1:
        kept = f"{few} clips" if few else f"{100 * share:g}% of the training clips"
        parts.append(f"learned from {kept} of each class, draw {result['label_draw']}")
    if result.get("folds"):
        parts.append(f"folds: {len(result['folds'])}")
    if result.get("confusion"):
        parts.append(f"test clips: {int(np.sum(result['confusion']))}")
    return ", ".join(parts)


def render_summary(summary: Mapping[str, Any]) -> str:
    """The text printed at the end of a run, a few aligned tables; several lines without a trailing line end."""
    heading = summary.get("name") or "run"
    if summary.get("seed") is not None:
        heading += f", seed {summary['seed']}"
    blocks = [heading]
    for title, table in (
        ("Pretraining", round_table(summary)),
        (f"{task_title(summary)} on test clips ({protocol_line(summary)})", evaluation_table(summary)),
        (f"{NAMES[ours(summary)].capitalize()}, fold by fold", fold_table(summary)),
        ("UA of all, fold by fold", fold_ua_table(summary)),
    ):
        if table[1] and not (table[0][0].startswith("fold") and len(table[1]) == 1):
            blocks.append(f"{title}\n{text_table(table)}")
    if lines := gain_lines(summary.get("rounds") or ()):
        blocks.insert(2, "\n".join(map(_wrapped, lines)))
    if lines := told_apart_lines(summary):
        blocks.append("Ours against the others, on the same test clips\n" + "\n".join(map(_wrapped, lines)))
    if (table := fold_comparisons(summary))[1]:
        blocks.append(f"The same in each fold\n{text_table(table)}")
    if lines := exposure_lines(summary):
        blocks.append("Test clips that were seen in training\n" + "\n".join(map(_wrapped, lines)))
    times = summary.get("wall_time_sec") or {}
    if times:
        rows = [[stage, duration(seconds)] for stage, seconds in times.items()]
        rows.append(["total", duration(sum(times.values()))])
        blocks.append("Wall time\n" + text_table((["stage", "time"], rows)))
    if summary.get("export_max_error") is not None:
        blocks.append(f"Export: largest difference after loading it back {summary['export_max_error']:.2g}")
    return "\n\n".join(blocks)


def _scores(result: Mapping[str, Any]) -> list[str]:
    return [percent(result.get(metric)) for metric in ("ua", "wa", "wf1", "macro_f1")]


def text_table(table: Table) -> str:
    """Aligned columns for a terminal: the first to the left, the others to the right."""
    columns, rows = table
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return "  " + "  ".join(aligned).rstrip()

    return "\n".join([line(columns), line(["-" * width for width in widths]), *map(line, rows)])
