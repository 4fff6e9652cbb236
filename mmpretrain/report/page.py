"""The page of a run: one HTML file that needs nothing beside it, with every figure that was measured.

A part that a run has not reached, or that its corpus cannot have, is left out of the page.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.files import write_text
from mmpretrain.observe.wall_time import PARTS
from mmpretrain.report import charts
from mmpretrain.report.blocks import Panels, curves, figure, html_table, section, strip
from mmpretrain.report.comparisons import NAMES, fold_comparisons, interval_text
from mmpretrain.report.few_labels import figure_by_share, label_efficiency_lines, label_efficiency_table, title_of
from mmpretrain.report.modalities import modality_tables
from mmpretrain.report.style import PAGE_STYLE
from mmpretrain.report.tables import (
    REFERENCE,
    duration,
    evaluation_table,
    exposure_lines,
    fold_table,
    fold_ua_table,
    gain_lines,
    ours,
    percent,
    probe_line,
    protocol_line,
    render_summary,
    round_table,
    speed_table,
    task_title,
    told_apart_lines,
)
from mmpretrain.report.tasks import READING, tasks_table
from mmpretrain.report.units import error_by_clips, too_short_lines, units_line, units_table

__all__ = ["render_summary", "write_report"]

INPUT_WAIT = "time/input_wait_share"  # in the charts alone


def write_report(
    path: str | Path,
    summary: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    *,
    cluster_counts: Sequence[np.ndarray] = (),
    unit_tables: Sequence[np.ndarray | None] = (),
    pictures: Sequence[Mapping[str, Any]] = (),
    files: Mapping[str, str] | None = None,
) -> None:
    """Writes the page, whole or not at all.

    summary: the content of `summary.json`; records: of `metrics.jsonl`. cluster_counts: frames per cluster, one
    [clusters] array a round; unit_tables: frames per true unit and cluster, one [units, clusters] array a round, None
    where units are not known. pictures: a row a clip, {"title", "mouth": uint8 [n, S, S], "face": uint8 [n, F, F]}.
    files: what lies where, {what: path}.
    """
    parts = [
        _header(summary),
        _rounds(summary, records),
        _clusters(cluster_counts, unit_tables),
        _evaluation(summary),
        _few_labels(summary.get("label_efficiency")),
        _tasks(summary.get("tasks")),
        _modalities(summary.get("modalities") or {}),
        _units(summary.get("units") or (), summary.get("units_of") or {}),
        _finetuning(records),
        _pictures(pictures),
        _times(summary.get("wall_time_sec") or {}),
        _speed(summary.get("goodput") or {}, records),
        _details(summary.get("corpus") or {}, files or {}),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_title(summary)}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )
    write_text(path, page)


def _title(summary: Mapping[str, Any]) -> str:
    return html.escape(str(summary.get("name") or "run"))


def _header(summary: Mapping[str, Any]) -> str:
    result, rounds = summary.get("evaluation") or {}, summary.get("rounds") or ()
    facts = []
    if result.get("ua") is not None:
        compared = [
            f"{name} {percent(result[key])}"
            for name, key in (("from scratch", "from_scratch_ua"), ("baseline", "baseline_ua"), ("chance", "chance_ua"))
            if result.get(key) is not None
        ]
        interval = interval_text(result)
        what = f"{task_title(summary)}, mean recall (UA) on test clips" + (f", 95% {interval}" if interval else "")
        facts.append((percent(result["ua"]), what, ", ".join(compared)))
    if rounds and rounds[-1].get("masked_accuracy") is not None:
        last = rounds[-1]
        facts.append(
            (
                percent(last["masked_accuracy"]),
                f"of masked frames predicted, round {last['round']}",
                f"among {last['num_clusters']} clusters" if last.get("num_clusters") else "",
            )
        )
    known = [entry["pnmi"] for entry in rounds if entry.get("pnmi") is not None]
    if known:
        earlier = f", before {known[-2]:.2f}" if len(known) > 1 else ""
        facts.append((f"{known[-1]:.2f}", "PNMI of the last targets", f"shared with the true units{earlier}"))
    times = summary.get("wall_time_sec") or {}
    if times:
        longest = max(times, key=times.get)
        facts.append((duration(sum(times.values())), "wall time", f"longest: {longest}, {duration(times[longest])}"))
    if summary.get("export_max_error") is not None:
        facts.append(
            (f"{summary['export_max_error']:.1g}", "largest difference", "of the exported encoder, loaded back")
        )
    seed = "" if summary.get("seed") is None else f"<p>seed {html.escape(str(summary['seed']))}</p>"
    tiles = ""
    for value, what, more in facts:
        lines = "".join(f"<span>{html.escape(line)}</span>" for line in (what, more) if line)
        tiles += f'<div class="fact"><b>{html.escape(value)}</b>{lines}</div>'
    return f'<header><h1>{_title(summary)}</h1>{seed}<div class="facts">{tiles}</div></header>'


def _rounds(summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    stages = _stages(records, r"round(\d+)/pretrain")
    table = round_table(summary)
    blocks = [html_table(table)] if table[1] else []
    if lines := gain_lines(summary.get("rounds") or ()):
        blocks.append("<h3>Over the untrained encoder</h3>" + "".join(f"<p>{html.escape(line)}</p>" for line in lines))
    panels = []
    for title, metric in (("loss", "loss"), ("accuracy on masked frames", "masked_accuracy")):
        lines = {
            f"round {number}": [
                (charts.series(records, stage, f"train/{metric}"), "thin"),
                (charts.series(records, stage, f"validation/{metric}"), "bold"),
            ]
            for number, stage in stages
        }
        panels.append((title, lines))
    if _any_points(panels):
        blocks.append(
            "<h3>Learning</h3><p>Strong line: validation clips; thin line: training batches. Losses over different "
            "numbers of clusters do not compare.</p>"
        )
        blocks.append(curves(panels, "of pretraining"))
    explanation = (
        "Each round predicts the clusters of masked frames. PNMI is the share of what there is to know about the true "
        "units that the cluster tells, purity the share of frames whose cluster's main unit is their own; both need a "
        "corpus whose units are known. Chance is the accuracy of always answering the commonest cluster. The probe "
        "reads the label off one frozen layer, of the round's encoder and of the same network untrained. "
        f"For comparison: {REFERENCE}."
    )
    if rounds := [entry for entry in summary.get("rounds") or () if entry.get("probe")]:
        explanation += f" Round {rounds[-1]['round']}, {probe_line(rounds[-1]['probe'])}."
    return section("Pretraining rounds", explanation, *blocks)


def _clusters(cluster_counts: Sequence[np.ndarray], unit_tables: Sequence[np.ndarray | None]) -> str:
    blocks = []
    if any(np.sum(counts) for counts in cluster_counts):
        blocks.append("<h3>Use</h3><p>A line that falls gently means that no few clusters hold all frames.</p>")
        blocks.append(figure(charts.draw_cluster_usage(cluster_counts), "cluster usage"))
    if any(table is not None and np.sum(table) for table in unit_tables):
        blocks.append(
            "<h3>Meaning</h3><p>Each column is a cluster and shows the true units of its frames. The cleaner the "
            "staircase, the more a cluster says about the unit.</p>"
        )
        blocks.append(figure(charts.draw_unit_tables(unit_tables), "true units in each cluster"))
    return section("Clusters", "", *blocks)


def _evaluation(summary: Mapping[str, Any]) -> str:
    result, table, folds = summary.get("evaluation") or {}, evaluation_table(summary), fold_table(summary)
    if not table[1]:
        return ""
    left = html_table(table, bold_last=True)
    if lines := told_apart_lines(summary):
        left += "<h3>Ours against the others, on the same test clips</h3>"
        left += "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    if len(folds[1]) > 1:
        left += f"<h3>Fold by fold, {NAMES[ours(summary)]}</h3>" + html_table(folds)
    for title, more in (("UA of all", fold_ua_table(summary)), ("Differences", fold_comparisons(summary))):
        left += f"<h3>{title}, fold by fold</h3>" + html_table(more) if more[1] else ""
    if lines := exposure_lines(summary):
        left += "<h3>Test clips that were seen in training</h3>"
        left += "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    right = ""
    if result.get("confusion") and result.get("classes"):
        picture = charts.draw_confusion(result["confusion"], result["classes"])
        right = f"<div><h3>Answers of {NAMES[ours(summary)]}</h3>" + figure(picture, "confusion matrix") + "</div>"
    line = protocol_line(summary)
    explanation = (line[:1].upper() + line[1:] + ". " if line else "") + (
        "UA is the mean of the classes' recalls, WA plain accuracy, WF1 the F1 weighted by support."
    )
    return section(task_title(summary), explanation, f'<div class="pair"><div>{left}</div>{right}</div>')


def _few_labels(curve: Mapping[str, Any] | None) -> str:
    if not curve:
        return ""
    name = title_of(curve)
    chart = charts.draw_few_labels(
        figure_by_share(curve), f"{name} on test clips", labels="share of the labels",
        write=lambda share: f"{100 * share:g}%", percent=name == "UA",
    )  # fmt: skip
    picture = figure(chart, f"{name} over the share of the labels")
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in label_efficiency_lines(curve))
    title, table = f"{curve['task'].capitalize()} from few labels", html_table(label_efficiency_table(curve))
    return section(title, "", picture, table, lines)


def _tasks(tasks: Mapping[str, Any] | None) -> str:
    table = tasks_table(tasks["figures"], tasks["shown"]) if tasks else ([], [])
    return section(f"Tasks, {tasks['protocol']}", READING, html_table(table)) if table[1] else ""


def _modalities(found: Mapping[str, Any]) -> str:
    parts = [
        f"<h3>{html.escape(title)}</h3><p>{html.escape(reading)}</p>{html_table(table)}"
        for title, reading, table in modality_tables(found)
    ]
    return section("Modalities", "", *parts)


def _units(entries: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    if not entries:
        return ""
    pictures = ""
    for inputs in dict.fromkeys(entry["inputs"] for entry in entries):
        lines = error_by_clips([entry for entry in entries if entry["inputs"] == inputs])
        chart = charts.draw_few_labels(lines, f"errors, {inputs}", labels="labelled clips", write="{:g}".format)
        pictures += figure(chart, f"errors over labelled clips, {inputs}")
    line = "".join(f"<p>{html.escape(each)}</p>" for each in (units_line(entries, about), *too_short_lines(entries)))
    return section("Units from few labels", "", pictures, html_table(units_table(entries)), line)


def _finetuning(records: Sequence[Mapping[str, Any]]) -> str:
    stages = _stages(records, r"finetune/(\w+)/fold\d+")
    names = sorted({name for name, _ in stages})  # from_scratch before pretrained
    panels = []
    ua = next((name for record in records for name in record if re.fullmatch(r"validation/\w+/ua", name)), "")
    for title, metric in (("training loss", "train/loss"), ("UA on validation clips", ua)):
        lines = {}
        for name in names:
            folds = [charts.series(records, stage, metric) for other, stage in stages if other == name]
            lines[name.replace("_", " ")] = [(fold, "thin") for fold in folds] + [(_mean(folds), "bold")]
        panels.append((title, lines))
    if not _any_points(panels):
        return ""
    several = len(stages) > len(names)
    explanation = "Thin line: one fold; strong line: their mean, over the steps that all have." if several else ""
    return section("Fine-tuning", explanation, curves(panels, "of fine-tuning"))


def _pictures(pictures: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for picture in pictures:
        strips = ""
        for name in ("face", "mouth"):
            frames = picture.get(name)
            if frames is not None and len(frames):
                width = min(96, 900 // len(frames)) * len(frames)
                strips += f'<img alt="{name} crops" width="{width}" src="{strip(frames)}">'
        if strips:
            rows.append(
                f'<div class="clip"><div>{html.escape(str(picture.get("title", "")))}</div>{"".join(strips)}</div>'
            )
    return section("What the network sees", "A few frames of some clips: the face crop and the mouth crop.", *rows)


def _times(times: Mapping[str, float]) -> str:
    if not times:
        return ""
    return section("Wall time", "", figure(charts.draw_bars(times, duration), "wall time per stage"))


def _speed(goodput: Mapping[str, Mapping[str, float]], records: Sequence[Mapping[str, Any]]) -> str:
    """How fast training went, and what the wall time of its stages went to."""
    table, blocks = speed_table(records, goodput), []
    if table[1]:
        blocks.append(html_table(table))
    if goodput:
        meanings = "; ".join(f"{_words(part)}: {meaning}" for part, meaning in PARTS.items())
        words = {stage: {_words(part): share for part, share in each.items()} for stage, each in goodput.items()}
        blocks.append(
            f"<h3>Where the time went</h3><p>Since a stage first began. {html.escape(meanings)}.</p>"
            + figure(charts.draw_shares(words), "what the wall time of each stage went to")
        )
    timed = [
        record | {INPUT_WAIT: record["time/input_wait_sec"] / record["time/step_sec"]}
        for record in records
        if "time/input_wait_sec" in record
    ]
    panels = []
    for title, metric in (
        ("frames per second", "throughput/frames_per_sec"),
        ("share of waiting for input", INPUT_WAIT),
    ):
        stages = _stages(timed, r"(round\d+)/pretrain")
        panels.append((title, {name: [(charts.series(timed, stage, metric), "bold")] for name, stage in stages}))
    if _any_points(panels):
        blocks.append(curves(panels, "of pretraining"))
    return section("Speed of training", "Medians over the records of a stage.", *blocks)


def _words(part: str) -> str:
    return part.replace("_", " ")


def _details(corpus: Mapping[str, Any], files: Mapping[str, str]) -> str:
    def entries(pairs, code: bool) -> str:
        value = "<code>{}</code>" if code else "{}"
        cells = (f"<dt>{html.escape(str(k))}</dt><dd>{value.format(html.escape(str(v)))}</dd>" for k, v in pairs)
        return f"<dl>{''.join(cells)}</dl>"

    blocks = []
    if corpus:
        blocks.append("<h3>Corpus</h3>" + entries(_flat(corpus), code=False))
    if files:
        blocks.append("<h3>Files</h3>" + entries(files.items(), code=True))
    return section("Where it comes from and where it is", "", *blocks)


def _stages(records: Sequence[Mapping[str, Any]], pattern: str) -> list[tuple[str, str]]:
    """Stages whose name matches, each once with the first group of the match, in order of appearance."""
    names = dict.fromkeys(str(record.get("stage", "")) for record in records)
    return [(match[1], name) for name in names if (match := re.fullmatch(pattern, name))]


def _mean(folds: Sequence[charts.Series]) -> charts.Series:
    shared = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in folds)))
    values = [[dict(zip(steps, values, strict=True))[step] for step in shared] for steps, values in folds]
    return np.array(shared), np.mean(values, axis=0)


def _any_points(panels: Panels) -> bool:
    return any(len(part[0]) for _, lines in panels for parts in lines.values() for part, _ in parts)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """{"a": {"b": 1}} -> [("a b", 1)]; numbers short."""
    pairs = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key} ")
        else:
            pairs.append((f"{prefix}{key}", f"{value:.4g}" if isinstance(value, float) else value))
    return pairs
