"""Stage `report`: `summary.json` and `report.html` out of what the other stages left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain import records
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.files import read_json, write_json
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.few_labels import flat, render_label_efficiency
from mmpretrain.report.modalities import render_modalities
from mmpretrain.report.tables import render_summary
from mmpretrain.report.tasks import render_tasks
from mmpretrain.report.units import render_units
from mmpretrain.run.command import Command, Given
from mmpretrain.run.layout import (
    EVALUATION,
    EXPORT,
    LABEL_EFFICIENCY,
    METRICS_FILE,
    PRETRAINED,
    SCRATCH,
    UNITS,
    fold_name,
    pretrain_name,
    round_figures,
    targets_name,
)
from mmpretrain.run.run import Run
from mmpretrain.run.source import ENCODER
from mmpretrain.run.stage import known_result, read_result

PICTURED_CLIPS, PICTURED_FRAMES = 4, 8


def report(run: Run) -> dict[str, Any]:
    """Writes both files from the stages that are finished, and prints the summary."""
    from mmpretrain.report.page import write_report  # brings matplotlib, for which no other stage waits at its start

    summary = _summary(run)
    write_json(run.workdir / "summary.json", summary)
    counts, tables = _clusters(run)
    write_report(
        run.workdir / "report.html", summary, read_metrics(run.workdir / METRICS_FILE),
        cluster_counts=counts, unit_tables=tables, pictures=_pictures(run),
        files={"run": str(run.workdir), "encoder": str(run.workdir / EXPORT / ENCODER)},
    )  # fmt: skip
    show(summary)
    log(f"summary: {run.workdir / 'summary.json'}; report: {run.workdir / 'report.html'}")
    return summary


def show(summary: dict[str, Any]) -> None:
    """Prints it."""
    print(render_summary(summary))
    if curve := summary.get(LABEL_EFFICIENCY):
        print(f"\n{curve['task'].capitalize()} from few labels\n{render_label_efficiency(curve)}")
    if (tasks := summary.get("tasks")) and (table := render_tasks(tasks["figures"], tasks["shown"])):
        print(f"\nTasks, {tasks['protocol']}\n{table}")
    if tables := render_modalities(summary.get("modalities") or {}):
        print(f"\n{tables}")
    if entries := summary.get(UNITS):
        print(f"\nUnits from few labels\n{render_units(entries, summary['units_of'])}")


def _summary(run: Run) -> dict[str, Any]:
    config, times = run.config, {}
    train, validation = run.clips  # says what is wrong with a corpus
    for corpus in config.data.corpora:
        prepared = read_json(Path(corpus.path) / records.CORPUS_FILE)
        times[f"prepare {prepared['name']}"] = prepared["wall_time_sec"]
    rounds = round_figures(run.workdir, len(config.rounds))
    for entry in rounds:
        for name in (targets_name(entry["round"]), pretrain_name(entry["round"])):
            times[name] = read_result(run.workdir, name)["wall_time_sec"]
    summary = {"name": run.workdir.name, "seed": config.seed, "rounds": rounds}
    if config.finetune is not None and (result := known_result(run.workdir, EVALUATION)) is not None:
        for variant in (PRETRAINED, SCRATCH):
            for entry in result["folds"]:
                name = fold_name(variant, entry["fold"])
                if (fold := known_result(run.workdir, name)) is not None:
                    times[name] = fold["wall_time_sec"]
        times[EVALUATION] = result.pop("wall_time_sec")
        if PRETRAINED in result or SCRATCH in result:  # else the first task has no classes
            summary["evaluation"] = with_ours(result)
        shown = result["task"] if "evaluation" in summary else ""
        if of_modalities := _of_modalities(run, result):
            summary["modalities"] = of_modalities
        summary["tasks"] = {"protocol": result["protocol"], "shown": shown, "figures": result.pop("tasks")}
    if (curve := known_result(run.workdir, LABEL_EFFICIENCY)) is not None:
        times[LABEL_EFFICIENCY] = curve.pop("wall_time_sec")
        summary = {curve["task"]: flat(curve)} | summary | {LABEL_EFFICIENCY: curve}
    if config.units is not None and (result := known_result(run.workdir, UNITS)) is not None:
        times[UNITS] = result.pop("wall_time_sec")
        summary |= {UNITS: result.pop("units"), "units_of": result}
    if (exported := known_result(run.workdir, EXPORT)) is not None:
        times[EXPORT] = exported["wall_time_sec"]
        summary["export_max_error"] = exported["max_error"]
    trained = {name: known_result(run.workdir, name) for name in times if not name.startswith("prepare ")}
    summary["goodput"] = {name: result["goodput"] for name, result in trained.items() if result and "goodput" in result}
    summary["corpus"] = {
        "training clips": len(train), "training hours": round(int(train.lengths.sum()) / 25 / 3600, 3),
        "validation clips": len(validation), "speakers": len(set(train.speakers.kinds()) - {""}),
    }  # fmt: skip
    found = {clip_id for result in trained.values() if result for clip_id in result.get("unreadable_clips", ())}
    return summary | {"unreadable_clips": sorted(found), "wall_time_sec": times}


def _of_modalities(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """What `report.modalities` shows: the table, gates, and by variant and fold the weights of late fusion."""
    weights = {}
    for variant in (PRETRAINED, SCRATCH):
        of_folds = {entry["fold"]: known_result(run.workdir, fold_name(variant, entry["fold"])) or {}
                    for entry in result["folds"]}  # fmt: skip
        if found := {fold: trained["late_weights"] for fold, trained in of_folds.items() if "late_weights" in trained}:
            weights[variant] = found
    found = {
        "table": result.pop("modality_table", {}),
        "shares": result.pop("modality_shares", {}),
        "gates": result.pop("gates", {}),
        "weights": weights,
    }
    return {name: part for name, part in found.items() if part}


def with_ours(result: dict[str, Any]) -> dict[str, Any]:
    """The evaluation's result with our pooled figures on top."""
    ours = result.get(PRETRAINED) or result[SCRATCH]
    names = ("ua", "wa", "wf1", "macro_f1", "confusion", "over_folds", "intervals")
    flat = {name: ours[name] for name in names if name in ours}
    scratch, baseline = result.get(SCRATCH), result.get("baseline")
    return result | flat | {
        "baseline_ua": baseline["ua"] if baseline else None, "from_scratch": scratch,
        "from_scratch_ua": scratch["ua"] if scratch else None,
    }  # fmt: skip


def _clusters(run: Run) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Frames per cluster, and per unit and cluster where units are known, of the first codebook of every round."""
    counts, tables = [], []
    for number in range(1, len(run.config.rounds) + 1):
        if known_result(run.workdir, targets_name(number)) is None:
            counts.append(np.zeros(0, np.int64))
            tables.append(None)
            continue
        store = run.round(number).codebooks[0].store
        counts.append(np.array(store.lineage["counts"]))
        tables.append(store.unit_counts)
    return counts, tables


def _pictures(run: Run) -> list[dict[str, Any]]:
    """A few clips of different speakers, some frames of each."""
    table, shown = run.clips[0], {}
    for i in np.flatnonzero(table.has("video")):
        shown.setdefault(table.speakers[i], i)
    pictures = []
    for i in list(shown.values())[:PICTURED_CLIPS]:
        try:
            clip = table.load(i)
            frames = np.linspace(0, clip.num_frames - 1, PICTURED_FRAMES).astype(int)
            title = ", ".join(part for part in (clip.clip_id, clip.speaker, *table.words(i)) if part)
            pictures.append({"title": title, "mouth": clip.mouth[frames], "face": clip.face[frames]})
        except UnreadableClipError as error:
            table.unreadable.add(error)
    return pictures


def _command(given: Given) -> None:
    run = given.look()
    on_main(lambda: report(run))


COMMAND = Command("report", "what is there so far: summary.json and report.html", _command)
