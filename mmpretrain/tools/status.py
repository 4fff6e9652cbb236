"""`mmpretrain status RUN`: how a run is doing, read from its folder alone, on any machine that sees it, without JAX."""

from __future__ import annotations

import itertools
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.config import RunConfig
from mmpretrain.lease import newest_owner
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.observe.wall_time import SIGN_EVERY_SEC, read_wall_time, shares
from mmpretrain.report.tables import duration, percent, round_table, text_table
from mmpretrain.run.collapse import Collapsed, check_predictions, check_targets
from mmpretrain.run.command import RUN, Command
from mmpretrain.run.layout import (
    CHECKPOINTS,
    METRICS_FILE,
    newest_step,
    pretrain_name,
    recipe_of_run,
    round_figures,
    runs_below,
    stage_names,
    targets_name,
    walk_table,
)
from mmpretrain.run.stage import RECIPE_FILE, WALL_TIME_FILE, known_result

SILENT_SEC = 6 * SIGN_EVERY_SEC  # a run that gives no sign for so long is dead or hangs
CLOCKS_SEC = 5.0  # clocks that differ by less are taken for one
NAMED = 3  # stages, of a run in the folder of another
SLOW = 5  # so many times the usual time between two records without one: stalled

Records = Sequence[Mapping[str, Any]]


def status(workdir: Path) -> str:
    """The whole report as text. Raises FileNotFoundError or ValueError for a folder that is no run's."""
    config = recipe_of_run(workdir)
    names, records = stage_names(config), read_metrics(workdir / METRICS_FILE)
    running, below = _running(workdir, names), runs_below(workdir)
    blocks = [f"{workdir}, seed {config.seed}"]
    if not below or any((workdir / name / RECIPE_FILE).exists() for name in names):  # else all is done below
        blocks[0] += f"\n{walk_table(workdir, names, running)}"
    if below:
        blocks.append(f"runs in it\n{_runs_table(below)}\n  `mmpretrain status {below[0]}` says more of one")
    for name in names:
        folder = workdir / name
        if (folder / RECIPE_FILE).exists() and known_result(workdir, name) is None:
            own = [record for record in records if record["stage"] == name]
            blocks.append(
                _block(name, [*_life(folder, own, name == running), *_progress(name, own, config), *_time(folder)])
            )
    blocks.append(_block("health", _health(workdir, config, records)))
    return "\n\n".join(block for block in blocks if block)


def _runs_table(runs: Sequence[Path]) -> str:
    """How far each of them is, as text."""
    rows = []
    for run in runs:
        names = stage_names(recipe_of_run(run))
        left = [name for name in names if known_result(run, name) is None]
        shown = ", ".join(left[:NAMED]) + ", ..." * (len(left) > NAMED)
        rows.append([str(run), f"{len(names) - len(left)} of {len(names)}", _running(run, names) or "-", shown or "-"])
    return text_table((["run", "stages done", "running", "not done"], rows))


def _block(title: str, lines: Sequence[str]) -> str:
    wrapped = [textwrap.fill(line, 116, initial_indent="  ", subsequent_indent="    ") for line in lines]
    return "\n".join([title, *wrapped]) if lines else ""


def _running(workdir: Path, names: Sequence[str]) -> str:
    """The stage that a process works on now; "" if none does.

    Whether one does is told by the run's lease, which needs no clock, or else by how old the last sign of a stage is.
    """
    walls = {
        name: wall for name in names if (wall := read_wall_time(workdir / name / WALL_TIME_FILE)) and wall["doing"]
    }
    newest = max(walls, key=lambda name: walls[name]["updated"], default="")
    if newest and (owner := newest_owner(workdir)) is not None:
        return newest if owner.lives(time.time()) else ""
    return newest if newest and 0 <= time.time() - walls[newest]["updated"] <= SILENT_SEC else ""


def _life(folder: Path, own: Records, alive: bool) -> list[str]:
    """Whether a process works on a stage that is begun but not done, and what it has left so far."""
    wall, now = read_wall_time(folder / WALL_TIME_FILE), time.time()
    if wall is None:
        return ["begun; nothing is known of its time"]
    kept, lines = [], []
    if (step := newest_step(folder / CHECKPOINTS)) is not None:
        written = (folder / CHECKPOINTS / str(step)).stat().st_mtime
        kept.append(f"last checkpoint: step {step}, {_ago(now - written)}")
    drift = now - wall["updated"]  # how far its machine's clock is behind, if it gave a sign just now
    sign = _ago(drift)
    if alive and not -CLOCKS_SEC <= drift <= SILENT_SEC:
        way = "behind" if drift > 0 else "ahead of"
        lines.append(f"the clock of its machine is {duration(abs(drift))} {way} this one's")
        now, sign = wall["updated"], "just now"
    if own:
        kept.append(f"last record: step {own[-1]['step']}, {_ago(now - own[-1]['time/unix_sec'])}")
    if not wall["doing"]:
        lines.append(f"STOPPED {sign}, in order; the same command continues")
    elif not alive:
        silent = f"for {duration(drift)}" if drift >= 0 else f"since a moment {sign}"
        lines.append(
            f"NO SIGN OF LIFE {silent}: killed, or the machine of process 0 hangs; it was at "
            f"{_words(wall['doing'])}; the same command continues"
        )
    else:
        lines.insert(0, f"running: {_words(wall['doing'])}; last sign {sign}; attempt {wall['attempts']}")
        times = [record["time/unix_sec"] for record in _since_start(own)]
        usual = max((b - a for a, b in itertools.pairwise(times)), default=0.0)
        if usual and now - own[-1]["time/unix_sec"] > max(SLOW * usual, SILENT_SEC):
            lines.append(f"STALLED? there has been no record for {SLOW} times as long as between any two before")
    return lines + (["; ".join(kept)] if kept else [])


def _ago(seconds: float) -> str:
    """In words, how long ago something was by this machine's clock, which may not be the clock that it was told by."""
    if seconds >= -CLOCKS_SEC:
        return f"{duration(max(seconds, 0.0))} ago"
    return f"{duration(-seconds)} ahead of this machine's clock (their clocks differ)"


def _since_start(own: Records) -> Records:
    """The records since the last start, of which the first says `run/...`."""
    starts = [i for i, record in enumerate(own) if "run/devices" in record]
    return own[starts[-1] if starts else 0 :]


def _progress(name: str, own: Records, config: RunConfig) -> list[str]:
    logged = [record for record in own if "train/loss" in record]
    if not logged:
        return []
    last, rounds = logged[-1], config.rounds
    number = int(name.split("/")[0].removeprefix("round")) if name.startswith("round") else None
    total = (config.finetune if number is None else rounds[number - 1]).num_steps
    lines = [f"step {last['step']:,} of {total:,} ({percent(last['step'] / total)})"]
    if "time/step_sec" in last:
        step_sec = last["time/step_sec"]
        figures = [
            f"{1 / step_sec:.3g} steps/s", f"{last['throughput/frames_per_sec']:,.0f} frames/s",
            f"{last['throughput/audio_hours_per_hour']:,.0f} hours an hour",
            f"input wait {percent(last['time/input_wait_sec'] / step_sec)}",
        ]  # fmt: skip
        figures += [f"MFU {percent(last['throughput/mfu'])}"] if "throughput/mfu" in last else []
        lines[0] += ": " + ", ".join(figures)
        first = next((record for record in _since_start(own) if "train/loss" in record), last)
        if first is not last:  # with evaluation and saving
            step_sec = (last["time/unix_sec"] - first["time/unix_sec"]) / (last["step"] - first["step"])
        to_go = f"to go at this rate: {duration((total - last['step']) * step_sec)}"
        if number is not None and number < len(rounds):
            later = sum(round_.num_steps for round_ in rounds[number:]) * step_sec
            to_go += f", and {duration(later)} for pretraining the rounds after it"
        lines.append(to_go)
    trend = f"loss {_number(last['train/loss'])}"
    before = logged[max(0, len(logged) - 1 - max(1, len(logged) // 4))]
    if before is not last and None not in (last["train/loss"], before["train/loss"]):
        trend += f", {last['train/loss'] - before['train/loss']:+.3g} since step {before['step']:,}"
    if masked := last.get("train/masked_accuracy"):
        trend += f"; masked accuracy {percent(masked)}"
    if validation := [record for record in own if "validation/loss" in record]:
        trend += f"; validation loss {_number(validation[-1]['validation/loss'])} at step {validation[-1]['step']:,}"
    return [*lines, trend]


def _time(folder: Path) -> list[str]:
    wall = read_wall_time(folder / WALL_TIME_FILE)
    if wall is None or not wall["seconds"]["useful_steps"]:
        return []
    parts = [f"{_words(part)} {percent(share)}" for part, share in shares(wall["seconds"]).items() if share >= 0.001]
    return ["wall time: " + ", ".join(parts)]


def _health(workdir: Path, config: RunConfig, records: Records) -> list[str]:
    """What is wrong, and the figures of the rounds that are done."""
    limits, lines = config.health, []
    bad = [r for r in records if any(name.startswith("train/") and value is None for name, value in r.items())]
    lines.append("every logged figure is a number" if records and not bad else "")
    if bad:
        lines[-1] = f"NOT FINITE: {len(bad)} records, the first at step {bad[0]['step']} of {bad[0]['stage']}"
    for number in range(1, len(config.rounds) + 1):
        codebooks = (known_result(workdir, targets_name(number)) or {}).get("codebooks", [])
        if codebooks and known_result(workdir, pretrain_name(number)) is None:
            used = ", ".join(f"{c['clusters_used']:.0f} of {c['num_clusters']}" for c in codebooks)
            lines.append(f"round {number}: targets use {used} clusters")
        lines += _collapse(lambda n=number, c=codebooks: check_targets(n, c, limits))
    rounds = round_figures(workdir, len(config.rounds))
    for entry in rounds:
        lines += _collapse(lambda e=entry: check_predictions(e["round"], e.get("codebooks") or [e], limits))
    table = text_table(round_table({"rounds": rounds})).splitlines() if rounds else []
    return [*filter(None, lines), *table]


def _collapse(check) -> list[str]:
    try:
        check()
    except Collapsed as error:
        return [f"COLLAPSED: {error}"]
    return []


def _words(part: str) -> str:
    return part.replace("_", " ")


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


COMMAND = Command(
    "status",
    "how a run is doing, from outside: progress, rates, time to go, health",
    lambda given: print(status(given.path)),
    takes=RUN,
    examples=("mmpretrain status runs/mine  # at any time, from anywhere",),
)
