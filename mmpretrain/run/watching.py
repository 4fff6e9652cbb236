"""What a training stage says of itself before its first step, and what its steps are timed and written with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mmpretrain.config import ModelConfig, ObserveConfig, as_dict, flatten
from mmpretrain.cost.chips import chip_of
from mmpretrain.cost.flops import FORMULA, step_flops
from mmpretrain.data.batch_plan import BatchPlan
from mmpretrain.observe.boards import TensorBoard, Wandb
from mmpretrain.observe.clock import StepClock
from mmpretrain.observe.metric_log import Board, MetricWriter
from mmpretrain.observe.profiling import Profiler
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import batch_multiple
from mmpretrain.run.base import devices_line, mesh_line
from mmpretrain.run.layout import METRICS_FILE, TENSORBOARD
from mmpretrain.run.run import Run
from mmpretrain.train.step import Trainer


def watch(
    run: Run,
    stage: str,
    title: str,
    wall: WallTime,
    trainer: Trainer,
    plan: BatchPlan,
    model: ModelConfig,
    num_clusters: Sequence[int] = (),
    pictures: Callable[[int], float] = lambda num_frames: 1.0,
) -> dict[str, Any]:
    """Logs the first lines of a training stage. Returns what a `Loop` is watched with: `writer`, `clock`, `profiler`.

    num_clusters: of each codebook that is predicted; a classifier's few products are not counted. pictures(T): the
    share of a batch's frames whose pictures go through the ResNet.
    """
    parameters = sum(np.prod(x.shape, dtype=int) for x in jax.tree.leaves(trainer.shapes.params))
    parts, (peak, peak_source) = batch_multiple(run.mesh), peak_flops(run.mesh, model, run.config.observe)
    shapes, on_each = (
        ", ".join(f"{clips // split} x {frames}" for clips, frames in plan.shapes) for split in (1, parts)
    )
    log(f"{title}: {parameters:,} parameters; {plan.summary()}")
    log(f"{title}: {plan.frames_per_step:,.0f} frames a step on average; clips x frames on each device: {on_each}")
    log(f"{title}: MFU against {peak_source}")
    facts = {
        "run/devices": devices_line(), "run/mesh": mesh_line(run.mesh), "run/parameters": int(parameters),
        "run/batches": f"clips x frames: {shapes}; on each device: {on_each}",
        "run/frames_per_step": round(plan.frames_per_step, 1),
        "run/mfu": f"FLOPs of the steps / (their seconds x peak); {FORMULA}",
        "run/peak": peak_source,
    } | ({} if peak is None else {"run/peak_flops_per_sec": peak})  # fmt: skip

    @functools.cache
    def flops(num_clips: int, num_frames: int) -> float:
        parts = step_flops(
            model, num_clips=num_clips, num_frames=num_frames, num_clusters=num_clusters,
            picture_share=pictures(num_frames),
        )  # fmt: skip
        return sum(parts.values())

    return {
        "writer": MetricWriter(run.workdir / METRICS_FILE, stage, facts, boards(run, stage)),
        "clock": StepClock(wall, flops, peak),
        "profiler": Profiler(run.workdir, stage, run.profile),
    }


def boards(run: Run, stage: str) -> list[Board]:
    """Where the recipe wants the stage's records shown."""
    observe, shown = run.config.observe, []
    if observe.tensorboard:
        shown.append(TensorBoard(run.workdir / TENSORBOARD / stage))
    if observe.wandb_project:
        folder, name = run.workdir / "wandb" / stage, run.workdir.name
        shown.append(Wandb(folder, observe.wandb_project, name, stage, flatten(as_dict(run.config), "config")))
    return shown


def peak_flops(mesh: jax.sharding.Mesh, model: ModelConfig, observe: ObserveConfig) -> tuple[float | None, str]:
    """Peak FLOP/s of all devices of the mesh together, None where it is not known, and in words where it is from."""
    kind = mesh.devices.flat[0].device_kind
    if observe.peak_tflops:
        per_device, source = observe.peak_tflops * 1e12, "observe.peak_tflops"
    elif chip := chip_of(kind):
        per_device, source = chip.flops_per_sec[model.dtype], f"{chip.name} in {model.dtype}: {chip.source}"
    else:
        return None, (
            f"no peak: none is known for {kind!r}, so throughput/mfu is left out; observe.peak_tflops=X (one device's, "
            "dense) supplies it"
        )
    return mesh.size * per_device, f"{mesh.size} x {per_device / 1e12:g} TFLOP/s ({kind}; {source})"
