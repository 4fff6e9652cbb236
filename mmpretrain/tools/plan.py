"""`mmpretrain plan`: what a recipe's last round needs of chips that need not be here, and how long all rounds take.

The very training step of `pretrain` is compiled for the topology, from shapes alone; nothing is run or written.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmpretrain.config import RoundConfig, RunConfig
from mmpretrain.cost import flops
from mmpretrain.cost import step_time as cost
from mmpretrain.cost.chips import Chip, Topology, parse_topology
from mmpretrain.cost.hlo import Program
from mmpretrain.data.batch import empty_batch
from mmpretrain.data.batch_plan import batch_size
from mmpretrain.objectives.masking import picture_share
from mmpretrain.observe.progress import log
from mmpretrain.parallel.mesh import batch_multiple, shardings
from mmpretrain.records import Batch
from mmpretrain.report.tables import duration, percent, text_table
from mmpretrain.run.command import Command, Option
from mmpretrain.run.run import Run
from mmpretrain.tools.plan_target import INSTALL_GPU_COMPILER, find_target
from mmpretrain.train.step import Trainer, TrainState

SCALES = (8, 64, 256, 1024)


def plan(config: RunConfig, topology_name: str) -> str:
    """The plan as text. To be called before JAX has looked for devices.

    Raises ValueError for a topology or mesh that cannot be, and where the compiler for TPUs is not installed.
    """
    topology = parse_topology(topology_name)
    if not config.rounds:
        raise ValueError("rounds is empty; a plan is of the pretraining of the last round")
    target = find_target(topology)
    report = Plan(Run(config, target.devices), topology, target.options)
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot read back what is not for this machine
    return f"{report.heading()}\ncompiled {target.compiler}\n\n" + "\n\n".join(report.blocks())


@dataclasses.dataclass(frozen=True)
class Plan:
    """The last round of a run on the (possibly imagined) devices of a topology. options: of the compiler."""

    run: Run
    topology: Topology
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> RunConfig:
        return self.run.config

    @property
    def chip(self) -> Chip:
        return self.topology.chip

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(clips, frames) of the batches."""
        data = self.config.data
        sizes = dict(batch_frames=data.batch_frames, multiple=data.batch_multiple)
        return [(batch_size(num_frames, **sizes), num_frames) for num_frames in sorted(data.bucket_frames)]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of batch with the most work; the plan is made for it."""
        return max(self.shapes, key=lambda shape: sum(_step_flops(self.config, self.config.rounds[-1], shape).values()))

    @property
    def parts(self) -> dict[str, float]:
        """FLOPs of a step by part of the network."""
        return _step_flops(self.config, self.config.rounds[-1], self.shape)

    def heading(self) -> str:
        axes = ", ".join(f"{axis} {size}" for axis, size in self.run.mesh.shape.items())
        return f"Plan for {self.topology.name}: {self.topology.num_chips} chips, mesh {axes}"

    @functools.cached_property
    def trainer(self) -> Trainer:
        return self.run.round(len(self.config.rounds)).trainer

    @functools.cached_property
    def state(self) -> TrainState:
        """Shapes and dtypes."""
        return self.trainer.shapes

    @functools.cached_property
    def kept(self) -> dict[str, float]:
        """Bytes of one chip that are there before the step."""
        state, mesh = self.state, self.run.mesh
        trees = {
            "parameters": state.params,
            "optimizer state": state.opt_state,
            "batch statistics and others": state.kept,
        }
        batch = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(self._abstract_batch()))
        return {k: _bytes_per_chip(tree, mesh) for k, tree in trees.items()} | {"batch": batch / batch_multiple(mesh)}

    def compile(self) -> jax.stages.Compiled:
        """Compiles the step. Raises JaxRuntimeError "RESOURCE_EXHAUSTED" where a TPU's compiler finds no room.

        ValueError where a GPU's lacks a part that it needs.
        """
        try:
            lowered = self.trainer.step.lower(self.state, self._abstract_batch())
            return lowered.compile(compiler_options=dict(self.options))
        except RuntimeError as error:
            if re.search("libdevice|ptxas", str(error)):
                raise ValueError(f"the compiler for GPUs lacks libdevice or ptxas: {INSTALL_GPU_COMPILER}") from error
            if "cuDNN not found" not in str(error):
                raise
            rate = self.config.model.attention_dropout
            raise ValueError(
                f"model.attention_dropout={rate}: attention that drops nothing is cuDNN's on a GPU, and JAX says: "
                f"{error} pip install nvidia-cudnn-cu13"
            ) from error

    def blocks(self) -> list[str]:
        """The parts of the plan's text."""
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(self.state.params))
        shape = " x ".join(map(str, self.shape))
        log(f"compiling a step of {shape} for {self.topology.name}: {parameters:,} parameters")
        try:
            compiled = self.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return [self._batches(), self._memory(refusal=str(error)), self._flops(None)]

        program = Program(compiled.as_text())
        work = cost.Work(
            self.chip, self.topology.num_chips, self._chip_flops(self.parts), program.traffic_bytes(),
            self.kept["parameters"] + self.kept["optimizer state"],
            tuple(program.collectives(self.run.mesh.shape)),
        )  # fmt: skip
        return [
            self._batches(),
            self._memory(compiled.memory_analysis()),
            self._flops((compiled.cost_analysis() or {}).get("flops")),
            self._collectives(work),
            self._step(work),
            self._scaling(work),
            self._rounds(work),
            self._reckoning(),
        ]

    def _abstract_batch(self) -> Batch:
        """A batch's shapes and dtypes."""
        round_ = self.config.rounds[-1]
        labels = {task.name: np.zeros(0, np.int32) for task in round_.tasks}
        batch = empty_batch(*self.shape, self.config.model, num_codebooks=len(round_.targets), labels=labels)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)

    def _chip_flops(self, parts: Mapping[str, float]) -> float:
        """What one chip computes: `tensor` cuts the pictures, layers and head; remat runs some twice forward."""
        model, more = self.config.model, 0.0
        if model.remat == "layers":
            more += parts["layers"] / 3
        if model.resnet_remat == "blocks":
            more += parts.get("stem", 0.0) / 2 + parts.get("resnet", 0.0) / 3
        shared = sum(parts.get(name, 0.0) for name in ("stem", "resnet", "layers", "head"))
        return (shared + more) / self.run.mesh.size + (sum(parts.values()) - shared) / batch_multiple(self.run.mesh)

    def _batches(self) -> str:
        (B, T), parts, micro_batches = self.shape, batch_multiple(self.run.mesh), self.config.parallel.micro_batches
        turns = f", {micro_batches} times {B // parts // micro_batches} x {T}" if micro_batches > 1 else ""
        shapes = ", ".join(f"{b} x {t}" for b, t in self.shapes)
        return (
            f"Batches of clips x frames: {shapes}\nBelow: round {len(self.config.rounds)}, the last; {B} x {T}, the "
            f"most work, taken for every step: {B // parts} x {T} a chip{turns}"
        )

    def _memory(self, analysis: Any = None, refusal: str = "") -> str:
        rows = [[name, _si(size)] for name, size in self.kept.items()]
        if analysis is not None:
            total = (
                analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
                + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
            )  # fmt: skip
            rows.append(["activations and temporaries", _si(analysis.temp_size_in_bytes)])
            rows.append(["all, as XLA lays it out", _si(total)])
            fits = total <= self.chip.hbm_bytes
        else:
            fits = False
        rows.append([f"of {_si(self.chip.hbm_bytes)}", "fits" if fits else "DOES NOT FIT"])
        text = "Memory of a chip\n" + text_table((["what", "bytes"], rows))
        if refusal:
            used = re.search(r"Used \S+ of \S+ hbm", refusal)
            text += f"\n  the compiler: {used[0] if used else refusal.splitlines()[0]}"
        return text if fits else text + (
            "\n  Raise parallel.micro_batches or parallel.fsdp, lower data.batch_frames, or set model.dtype=bfloat16 "
            "or model.remat=layers and model.resnet_remat=convolutions."
        )  # fmt: skip

    def _flops(self, xla_flops: float | None) -> str:
        parts, total = self.parts, sum(self.parts.values())
        rows = [[part, f"{value:.3e}", percent(value / total)] for part, value in parts.items()]
        rows += [["step", f"{total:.3e}", ""], ["of one chip", f"{self._chip_flops(parts):.3e}", ""]]
        text = "FLOPs of a step, forward and backward, by formula\n" + text_table((["part", "FLOPs", "share"], rows))
        # Of a GPU's program, whose products and convolutions are calls of libraries, XLA counts the rest alone.
        if xla_flops is None or self.run.mesh.devices.flat[0].platform == "gpu":
            return text
        once = self._chip_flops(parts | {"layers": parts["layers"] / self.config.model.num_layers})
        micro_batches = self.config.parallel.micro_batches
        loops = "the loop over layers" + (" and of that over the parts of a batch" if micro_batches > 1 else "")
        return text + (
            f"\n  XLA counts {xla_flops:.3e} on one chip, with one turn of {loops}; so does the formula: "
            f"{once / micro_batches:.3e}"
        )

    def _collectives(self, work: cost.Work) -> str:
        rows = [
            [c.kind, "+".join(c.axes), str(c.group_size), f"{c.count:,.0f}", f"{c.in_series:,.0f}",
             _si(c.payload_bytes), _si(cost.sent_bytes(c))]
            for c in work.collectives
        ]  # fmt: skip
        number, in_series = (sum(getattr(c, field) for c in work.collectives) for field in ("count", "in_series"))
        sent = sum(map(cost.sent_bytes, work.collectives))
        rows.append(["all", "", "", f"{number:,.0f}", f"{in_series:,.0f}", "", _si(sent)])
        columns = ["kind", "axis", "devices", "number", "in series", "payload", "sent by each"]
        return "Exchanged in a step\n" + text_table((columns, rows))

    def _seconds(self, work: cost.Work) -> cost.StepTime:
        return cost.step_time(work, dtype=self.config.model.dtype)

    def _step(self, work: cost.Work) -> str:
        time = self._seconds(work)
        peak = work.num_chips * self.chip.flops_per_sec[self.config.model.dtype]
        rows = [
            ["compute", _si(work.flops, "FLOP"), _ms(time.compute)],
            ["memory", _si(work.memory_bytes), _ms(time.memory)],
            ["exchange", _si(sum(map(cost.sent_bytes, work.collectives))), _ms(time.exchange)],
            ["latency", f"{sum(c.in_series for c in work.collectives):,.0f} in series", _ms(time.latency)],
            ["step", f"{math.prod(self.shape) / time.total:,.0f} frames/s", _ms(time.total)],
            ["MFU", "", percent(flops.mfu(sum(self.parts.values()), time.total, peak))],
        ]
        return "Predicted step\n" + text_table((["of a chip", "work", "time"], rows))

    def _scaling(self, work: cost.Work) -> str:
        mesh, rows = self.run.mesh.shape, []
        if mesh["data"] == 1:
            return "Predicted scaling: needs a plan for two or more along `data`, whose exchange this step lacks"
        for num_chips in SCALES:
            data, rest = divmod(num_chips, mesh["fsdp"] * mesh["tensor"])
            fits = data > 0 and rest == 0
            divides = fits and self.shape[0] % (data * mesh["fsdp"]) == 0
            row = [f"{num_chips:,}"]
            for possible, keep_global_batch in ((fits, False), (divides, True)):
                if possible:
                    time = self._seconds(cost.scaled(work, num_chips, keep_global_batch=keep_global_batch))
                    row += [_ms(time.total), percent(time.efficiency)]
                else:
                    row += ["-", "-"]
            rows.append(row)
        columns = ["chips", "step, batch per chip kept", "efficiency", "step, global batch kept", "efficiency"]
        return "Predicted scaling along `data`\n" + text_table((columns, rows))

    def _rounds(self, work: cost.Work) -> str:
        rounds, step = self.config.rounds, self._seconds(work).total / sum(self.parts.values())
        seconds = [r.num_steps * step * sum(_step_flops(self.config, r, self.shape).values()) for r in rounds]
        rows = [[str(i + 1), f"{rounds[i].num_steps:,}", duration(s)] for i, s in enumerate(seconds)]
        rows.append(["all", f"{sum(r.num_steps for r in rounds):,}", duration(sum(seconds))])
        table = text_table((["round", "steps", "time"], rows))
        return f"Predicted pretraining, without making targets, validation and saving\n{table}"

    def _reckoning(self) -> str:
        chip, dtype = self.chip, self.config.model.dtype
        peaks = (
            f"peaks of {chip.name}: {_si(chip.flops_per_sec[dtype], 'FLOP/s')} in {dtype}, HBM "
            f"{_si(chip.hbm_bytes_per_sec)}/s, link {_si(chip.link_bytes_per_sec)}/s in domains of "
            f"{chip.domain_chips}, network {_si(chip.network_bytes_per_sec)}/s a chip\n  ({chip.source})\n"
            f"latencies: {chip.start_sec * 1e6:g} us to start, {chip.hop_sec * 1e6:g} us a hop, "
            f"{chip.network_hop_sec * 1e6:g} us a hop of the network\n"
            f"shares of the peaks: compute {chip.shares.compute:g}, memory {chip.shares.memory:g}, {chip.shares.source}"
        )
        lines = f"FLOPs {flops.FORMULA}\n{cost.MODEL}\n{peaks}".splitlines()
        return "How this is reckoned\n" + "\n".join("  " + line for line in lines)


def _step_flops(config: RunConfig, round_: RoundConfig, shape: tuple[int, int]) -> dict[str, float]:
    clusters = [targets.num_clusters + round_.reference.dead_classes for targets in round_.targets]
    share = picture_share(round_.masking, shape[1])
    return flops.step_flops(
        config.model, num_clips=shape[0], num_frames=shape[1], num_clusters=clusters, picture_share=share
    )  # fmt: skip


def _bytes_per_chip(tree: Any, mesh: jax.sharding.Mesh) -> int:
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings(tree, mesh)), strict=True)
    return sum(math.prod(place.shard_shape(x.shape)) * x.dtype.itemsize for x, place in pairs)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.2f} ms"


def _si(value: float, unit: str = "B") -> str:
    """E.g. 412 MB."""
    power = 0 if value < 1 else min(int(math.log10(value) / 3 + 1e-3), 5)
    return f"{value / 1000**power:.3g} {' kMGTP'[power].strip()}{unit}"


COMMAND = Command(
    "plan",
    "what the last round needs of chips that need not be here, and how long",
    lambda given: print(plan(given.config, given["topology"])),
    options=(
        Option("topology", str, "the chips and their number, e.g. v5e:16x16 or h100:8", "CHIP:SHAPE", required=True),
    ),
    examples=("mmpretrain plan --topology=v5e:16x16 --config=avhubert_base_lrs3  # no TPU needed",),
)
