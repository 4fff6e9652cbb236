"""What all stages of a run share: its recipe, its devices, its clips and its files."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from mmpretrain.config import ModelConfig, RunConfig, as_dict, recipe_of
from mmpretrain.config.checks import check
from mmpretrain.data.batch import make_batch
from mmpretrain.data.batch_plan import BatchPlan, EvaluationPlan, PlannedBatch
from mmpretrain.data.clips import ClipTable, training_and_validation
from mmpretrain.data.pipeline import iterate
from mmpretrain.files import write_json
from mmpretrain.objectives.base import Objective
from mmpretrain.observe.boards import WANDB_MISSING
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import batch_multiple, make_mesh, process_rows
from mmpretrain.parallel.processes import on_main
from mmpretrain.parallel.stopping import check_stop
from mmpretrain.records import Batch
from mmpretrain.run.layout import CONFIG_FILE, METRICS_FILE, TENSORBOARD
from mmpretrain.run.stage import run_stage
from mmpretrain.targets.labelling import CLIP_FEATURES
from mmpretrain.train.step import Trainer
from mmpretrain.train.trainable import EVERYTHING, Trainable


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """The batches of a training run. load: this process's share of a planned one."""

    plan: BatchPlan
    table: ClipTable
    load: Callable[[PlannedBatch], Batch]
    num_steps: int
    num_workers: int

    def __call__(self, first_step: int) -> Iterator[Batch]:
        """Those of the steps after `first_step` completed ones, in order."""
        steps = iterate(
            self.plan, self.load, first_step=first_step, num_steps=self.num_steps, num_workers=self.num_workers
        )
        return (batch for _, batch in steps)

    def clip_ids(self, step: int) -> list[str]:
        """Of the whole batch of `step`, counted from 1."""
        return [self.table.clip_ids[row] for row in self.plan[step - 1].clips]


class Run:
    """A checked recipe, ready to run on `devices` (default: all that there are).

    profile: the steps of every training stage that are traced; see observe/profiling.py.
    """

    def __init__(
        self,
        config: RunConfig,
        devices: Sequence[jax.Device] | None = None,
        *,
        accept_changes: bool = False,
        profile: range | None = None,
    ):
        check(config)
        self.config, self.accept_changes, self.profile = config, accept_changes, profile
        self.workdir = Path(config.workdir)
        _cache_compilations()
        self.mesh: Mesh = make_mesh(config.parallel, devices)
        parts, multiple = batch_multiple(self.mesh), config.data.batch_multiple
        micro_batches = config.parallel.micro_batches
        if multiple % (parts * micro_batches):
            again = f", each of them into parallel.micro_batches={micro_batches}" if micro_batches > 1 else ""
            raise ValueError(
                f"data.batch_multiple={multiple} does not divide over the {parts} parts that the mesh cuts a batch "
                f"into{again}; set it to a multiple of {parts * micro_batches}"
            )

    def announce(self) -> None:
        """The first lines of a run, and its resolved recipe beside its results."""
        log(f"devices: {devices_line()}; mesh: {mesh_line(self.mesh)}")
        observe = self.config.observe
        if observe.wandb_project and importlib.util.find_spec("wandb") is None:
            raise ValueError(WANDB_MISSING.format(observe.wandb_project))
        shown = [METRICS_FILE, *[f"{TENSORBOARD}/"] * observe.tensorboard]
        shown += [f"Weights & Biases, project {observe.wandb_project}"] if observe.wandb_project else []
        log(f"writing to {self.workdir}: checkpoints and results by stage; metrics in {', '.join(shown)}")
        on_main(lambda: write_json(self.workdir / CONFIG_FILE, as_dict(self.config)))

    @functools.cached_property
    def clips(self) -> tuple[ClipTable, ClipTable]:
        """The clips to pretrain on and those to validate on that have a modality of the model."""
        modalities = self.config.model.modalities
        train, validation = training_and_validation(self.config.data)
        return train.require(modalities), validation.require(modalities) if len(validation) else validation

    def clips_of_round(self, number: int) -> tuple[ClipTable, ClipTable]:
        """As `clips`, without those that lack what a codebook of round `number` is made of.

        Raises ValueError if all do.
        """
        train, validation = self.clips
        for index, targets in enumerate(self.config.rounds[number - 1].targets):
            if targets.features not in CLIP_FEATURES:
                continue
            kind = CLIP_FEATURES[targets.features]
            missing, has = {"audio": "sound"}.get(kind.needs, kind.needs), train.has(kind.needs)
            if not has.any():
                raise ValueError(
                    f"rounds[{number - 1}].targets[{index}].features={targets.features!r} needs {missing}, but none of "
                    f"the {len(train)} training clips of {train.folders()} that are left has any; use other features, "
                    "or prepare a corpus that has it"
                )
            if not has.all():
                log(
                    f"round {number}: {int((~has).sum())} of {len(train)} training clips have no {missing}, hence no "
                    f"{kind.title} targets; they are left out"
                )
            train, validation = train.select(has), validation.select(validation.has(kind.needs))
        return train, validation

    def recipe(self, *parts: str, **more: Any) -> dict[str, Any]:
        """What decides a stage's result: those parts of the recipe, the clips, and anything else."""
        return recipe_of(self.config, *parts) | more

    def stage(
        self, name: str, recipe: dict[str, Any], work: Callable[[Path, WallTime], dict[str, Any]]
    ) -> dict[str, Any]:
        return run_stage(self.workdir, name, recipe, work, accept_changes=self.accept_changes)

    def training_batches(
        self, table: ClipTable, model: ModelConfig, num_steps: int, *, batch_frames: int, **inputs: Any
    ) -> TrainingBatches:
        data = dataclasses.replace(self.config.data, batch_frames=batch_frames)
        plan = BatchPlan(
            table.lengths, batch_frames=batch_frames, bucket_frames=data.bucket_frames,
            multiple=data.batch_multiple, seed=self.config.seed, weights=table.weights,
        )  # fmt: skip

        def load(planned: PlannedBatch) -> Batch:
            share = planned.take(process_rows(self.mesh, len(planned.clips)))
            return make_batch(share, table, model=model, data=data, train=True, seed=self.config.seed, **inputs)

        return TrainingBatches(plan, table, load, num_steps, data.num_workers)

    def make_trainer(
        self, objective: Objective, tx: optax.GradientTransformation, trainable: Trainable = EVERYTHING
    ) -> Trainer:
        config = self.config
        return Trainer(objective, tx, self.mesh, trainable, config.parallel.micro_batches, config.health)

    def micro_batch_recipe(self, model: ModelConfig) -> dict[str, Any]:
        """The part of a training stage's recipe that says how batches are cut, where batch statistics feel it."""
        return {"parallel.micro_batches": self.config.parallel.micro_batches} if "video" in model.modalities else {}

    def evaluation_batches(
        self, table: ClipTable, model: ModelConfig, *, batch_frames: int, **inputs: Any
    ) -> Iterator[Batch]:
        """Every clip of `table` once, whole and unchanged; this process's share of each batch.

        Raises Stopped between two batches if the run was asked to stop.
        """
        data = self.config.data
        plan = EvaluationPlan(
            table.lengths, batch_frames=batch_frames, bucket_frames=data.bucket_frames, multiple=data.batch_multiple
        )

        def load(planned: PlannedBatch) -> Batch:
            share = planned.take(process_rows(self.mesh, len(planned.clips)))
            return make_batch(share, table, model=model, data=data, train=False, seed=self.config.seed, **inputs)

        steps = iterate(plan, load, first_step=0, num_steps=len(plan), num_workers=data.num_workers)
        for _, batch in steps:
            check_stop()
            yield batch


def devices_line() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind} in {jax.process_count()} process(es)"


def mesh_line(mesh: Mesh) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())


def _cache_compilations() -> None:
    """Keeps compiled programs between runs, so that a restart or a second round does not compile again."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mmpretrain" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
