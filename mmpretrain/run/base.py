"""What every part of a run stands on: its recipe, its devices, its clips and batches, and its folder."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from mmpretrain.config import ModelConfig, RunConfig, as_dict, fields_of
from mmpretrain.config.checks import check
from mmpretrain.data.batch import make_share
from mmpretrain.data.batch_plan import BATCH_FRAMES, BatchPlan, EvaluationPlan, PlannedBatch
from mmpretrain.data.clips import ClipTable, training_and_validation
from mmpretrain.data.exposure import among
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.noise import check_noise, noise_files, noise_fingerprint
from mmpretrain.data.pipeline import iterate
from mmpretrain.data.unreadable import Unreadable
from mmpretrain.objectives.base import Objective
from mmpretrain.observe.boards import WANDB_MISSING
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import batch_multiple, make_mesh, process_rows
from mmpretrain.parallel.processes import Board, gather, on_main
from mmpretrain.parallel.stopping import check_stop
from mmpretrain.randomness import part_seed
from mmpretrain.records import Batch
from mmpretrain.run.batches import BATCH_FIELDS, TrainingBatches
from mmpretrain.run.folds import check_excluded_folds, check_manifests, excluded_data
from mmpretrain.run.layout import CONFIG_FILE, METRICS_FILE, TENSORBOARD
from mmpretrain.run.names import check_names
from mmpretrain.run.paths import check_paths
from mmpretrain.run.sealed import write_sealed
from mmpretrain.run.stage import check_begun, run_stage
from mmpretrain.train.step import Trainer
from mmpretrain.train.trainable import EVERYTHING, Trainable


class RunBase:
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
        check_names(config)
        check_paths(config)
        check_excluded_folds(config)
        self.config, self.accept_changes, self.profile = config, accept_changes, profile
        self.workdir = Path(config.workdir)
        board = Board() if jax.process_count() > 1 else None
        self.unreadable = Unreadable(config.data.max_unreadable_share, functools.partial(log, of_process=True), board)
        cache_compilations()
        self.mesh: Mesh = make_mesh(config.parallel, devices)
        parts, multiple = batch_multiple(self.mesh), config.data.batch_multiple
        micro_batches = config.parallel.micro_batches
        if multiple % (parts * micro_batches):
            again = f", each of them into parallel.micro_batches={micro_batches}" if micro_batches > 1 else ""
            raise ValueError(
                f"data.batch_multiple={multiple} does not divide over the {parts} parts that the mesh cuts a batch "
                f"into{again}; set it to a multiple of {parts * micro_batches}"
            )

    def with_config(self, config: RunConfig) -> Self:
        """A run of another recipe on the same devices, as this command was given."""
        devices = list(self.mesh.devices.flat)
        return type(self)(config, devices, accept_changes=self.accept_changes, profile=self.profile)

    def announce(self) -> None:
        """The first lines of a run, and its resolved recipe beside its results."""
        log(f"devices: {devices_line()}; mesh: {mesh_line(self.mesh)}")
        observe = self.config.observe
        if observe.wandb_project and importlib.util.find_spec("wandb") is None:
            raise ValueError(WANDB_MISSING.format(observe.wandb_project))
        shown = [METRICS_FILE, *[f"{TENSORBOARD}/"] * observe.tensorboard]
        shown += [f"Weights & Biases, project {observe.wandb_project}"] if observe.wandb_project else []
        log(f"writing to {self.workdir}: checkpoints and results by stage; metrics in {', '.join(shown)}")
        on_main(lambda: write_sealed(self.workdir / CONFIG_FILE, as_dict(self.config)))

    @functools.cached_property
    def clips(self) -> tuple[ClipTable, ClipTable]:
        """The clips to pretrain on and those to validate on that have a modality of the model.

        Logs what of the model cannot be trained, or not be validated, on them.
        """
        modalities = self.config.model.modalities
        tested = excluded_data(self.config)
        excluded = tested.shares_with if tested else None
        check_manifests(self.config.data, tested)
        train, validation = training_and_validation(self.config.data, excluded, self.unreadable)
        train = train.require(modalities, "training")
        if len(validation):
            validation = validation.require(modalities, "validation")
            if doubles := int(among(train.content_hashes, np.sort(validation.content_hashes)).sum()):
                log(
                    f"{doubles} of the {len(train)} training clips are validated on as well, under another id, so that "
                    "validation figures are too good; `mmpretrain doctor CORPUS` names clips that are there twice"
                )
        for modality in modalities:
            for part, table in (("training", train), ("validation", validation)):
                if len(table) and not table.has(INPUTS[modality].needs).any():
                    log(f"none of the {len(table)} {part} clips of {table.folders()} has {modality}")
        return train, validation

    def fields(self, *names: str, but: Sequence[str] = ()) -> dict[str, Any]:
        """Those fields of the recipe, for a stage to say what it reads; see `config.fields_of`."""
        return fields_of(self.config, *names, but=but)

    def stage(
        self, name: str, recipe: dict[str, Any], work: Callable[[Path, WallTime], dict[str, Any]]
    ) -> dict[str, Any]:
        """As `run_stage`; the result has the clips that could not be read, where there were any."""

        def work_and_count(folder: Path, wall: WallTime) -> dict[str, Any]:
            result = work(folder, wall)
            unreadable = sorted({clip_id for found in gather(self.unreadable.clip_ids) for clip_id in found})
            return result | ({"unreadable_clips": unreadable} if unreadable else {})

        return run_stage(self.workdir, name, recipe, work_and_count, accept_changes=self.accept_changes)

    def check_begun(self, name: str, fields: dict[str, Any]) -> None:
        """Raises ValueError if the stage was begun with other values of these fields, and changes are not accepted."""
        if not self.accept_changes:
            check_begun(self.workdir, name, fields)

    def stage_seed(self, name: str) -> int:
        """Of all that is random about a stage. No other stage of the run has it, and none of a run of another seed."""
        return part_seed(self.config.seed, name)

    def training_batches(
        self,
        name: str,
        table: ClipTable,
        model: ModelConfig,
        num_steps: int,
        *,
        batch_frames: int,
        weights: np.ndarray | None = None,
        strata: np.ndarray | None = None,
        field: str = BATCH_FRAMES,
        **inputs: Any,
    ) -> TrainingBatches:
        """Of the stage of that name. inputs: what else `make_batch` takes. Raises what `check_noise` raises.

        weights: float [N], how often each clip is in an epoch, times the weight of its corpus; None: 1. strata, field:
        as in `BatchPlan`.
        """
        self.check_noise()
        seed = self.stage_seed(name)
        data = dataclasses.replace(self.config.data, batch_frames=batch_frames)
        weights = table.weights if weights is None else table.weights * weights
        plan = BatchPlan(
            table.lengths, batch_frames=batch_frames, bucket_frames=data.bucket_frames,
            multiple=data.batch_multiple, seed=seed, weights=weights, strata=strata, field=field,
        )  # fmt: skip
        load = self._loading(plan, table, model=model, data=data, train=True, seed=seed, **inputs)
        return TrainingBatches(plan, table, load, num_steps, data.num_workers)

    def check_noise(self) -> None:
        """Raises FileNotFoundError or ValueError if training would come upon noise that cannot be read."""
        noise = self.config.data.noise
        if noise.prob > 0:
            seconds = check_noise(noise.path)
            log(f"noise: {len(noise_files(noise.path))} files of {noise.path}, {seconds / 60:.1f} min, can all be read")

    def make_trainer(
        self, objective: Objective, tx: optax.GradientTransformation, trainable: Trainable = EVERYTHING
    ) -> Trainer:
        config = self.config
        return Trainer(objective, tx, self.mesh, trainable, config.parallel.micro_batches, config.health)

    def batches_recipe(self, model: ModelConfig) -> dict[str, Any]:
        """What the recipe says of all training batches, whatever their size and the weights of their corpora.

        Noise is its files, and not only their folder. Cutting batches into parts counts where batch statistics feel it.
        """
        noise = self.config.data.noise
        files = {"noise files": noise_fingerprint(noise.path)} if noise.prob > 0 and noise.path else {}
        return files | self.fields(*BATCH_FIELDS, *["parallel.micro_batches"] * ("video" in model.modalities))

    def evaluation_batches(
        self,
        table: ClipTable,
        model: ModelConfig,
        *,
        batch_frames: int,
        wanted: np.ndarray | None = None,
        **inputs: Any,
    ) -> Iterator[tuple[PlannedBatch, Batch]]:
        """Every clip of `table` once, whole or in windows, unchanged: of each batch its plan and this process's share.

        wanted: bool [N], the clips to be among them; batches with none of these are left out, the others as they are.
        Raises Stopped between two batches if the run was asked to stop.
        """
        data = self.config.data
        plan = EvaluationPlan(
            table.lengths, batch_frames=batch_frames, bucket_frames=data.bucket_frames, multiple=data.batch_multiple
        )
        load = self._loading(plan, table, model=model, data=data, train=False, seed=self.config.seed, **inputs)
        kept = plan if wanted is None else [p for p in map(plan.__getitem__, range(len(plan))) if _any_of(p, wanted)]
        for planned, batch in iterate(
            kept, load, first_step=0, num_steps=len(kept), num_workers=data.num_workers, unreadable=table.unreadable
        ):
            check_stop()
            yield planned, batch

    def _loading(
        self, plan: BatchPlan | EvaluationPlan, table: ClipTable, **how: Any
    ) -> Callable[[PlannedBatch], Batch]:
        """Makes this process's share of a batch of a plan, also in another process, which has no device."""
        rows_of = {num_clips: process_rows(self.mesh, num_clips) for num_clips, _ in plan.shapes}
        return functools.partial(make_share, table=table, rows_of=rows_of, **how)


def _any_of(planned: PlannedBatch, wanted: np.ndarray) -> bool:
    return bool(wanted[planned.clips[planned.clips >= 0]].any())


def devices_line() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind} in {jax.process_count()} process(es)"


def mesh_line(mesh: Mesh) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())


def cache_compilations() -> None:
    """Keeps compiled programs between runs, so that a restart or a second round does not compile again."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mmpretrain" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
