"""The training loop of every objective, read from top to bottom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmpretrain.checkpoint import Checkpointer
from mmpretrain.config import CheckpointConfig
from mmpretrain.data.records import Batch
from mmpretrain.observe.clock import StepClock
from mmpretrain.observe.memory import peak_memory
from mmpretrain.observe.metrics import MetricWriter
from mmpretrain.observe.profiling import Profiler
from mmpretrain.observe.progress import Progress, log
from mmpretrain.parallel.mesh import shard_batch
from mmpretrain.parallel.stopping import Stopped, check_stop
from mmpretrain.train.step import Trainer, TrainState

TRAIN_PREFIX = "train/"


@dataclasses.dataclass(frozen=True)
class Loop:
    """What a training run is made of.

    batches(first_step): the training batches from that step on. evaluate(state): metrics by full name, such as
    `valid/loss`; called every `eval_every` steps and at the end. select_by: the metric whose best state is kept as well
    (None: only the last). initialize(state): changes the fresh state once, e.g. puts an encoder in.
    """

    trainer: Trainer
    batches: Callable[[int], Iterator[Batch]]
    evaluate: Callable[[TrainState], dict[str, float]]
    writer: MetricWriter
    clock: StepClock
    profiler: Profiler
    folder: Path
    title: str
    seed: int
    num_steps: int
    log_every: int
    eval_every: int
    checkpoint: CheckpointConfig
    learning_rate: Callable[[int], Any]
    select_by: str | None = None
    initialize: Callable[[TrainState], TrainState] = lambda state: state

    def run(self) -> TrainState:
        """Trains from this folder's latest checkpoint, or from the start, to `num_steps`.

        Returns the last state, or the best one where `select_by` is set. Everything but timings is the same however
        often the run was interrupted. Raises Stopped, after saving, if it was asked to stop.
        """
        clock, wall = self.clock, self.clock.wall
        wall.switch("startup")
        saved = Checkpointer(self.folder / "checkpoints", keep=self.checkpoint.keep)
        best = Checkpointer(self.folder / "best", keep=1)
        state, best_value, evaluated, num_records = self.trainer.init(self.seed), -float("inf"), True, 0
        useful_sec = 0.0
        if saved.latest() is None:
            state = self.initialize(state)
        else:
            state, extra = saved.restore(state)
            best_value, evaluated, num_records = extra["best_value"], extra["evaluated"], extra["num_records"]
            useful_sec = extra["useful_sec"]
        first_step = int(state.step)
        # What was done and logged after the checkpoint is about to happen again.
        self.writer.resume(num_records)
        clock.resume(useful_sec)

        def evaluate(step: int) -> None:
            nonlocal best_value
            with wall.during("evaluation"):
                values = self.evaluate(state)
            self.writer.write(step, values)
            if self.select_by and values[self.select_by] > best_value:
                best_value = values[self.select_by]
                with wall.during("saving"):
                    best.save(step, state, {"step": step, **values})

        def save(step: int) -> None:
            extra = {"best_value": best_value, "evaluated": evaluated, "num_records": self.writer.num_records,
                     "useful_sec": wall.seconds()["useful_steps"]}  # fmt: skip
            with wall.during("saving"):
                best.wait()  # a checkpoint must not know of a best that is not there
                saved.save(step, state, extra)
            wall.save()

        if not evaluated:  # it was stopped before the evaluation that was due, or in it
            evaluate(first_step)
            evaluated = True
        batches = self.batches(first_step)
        progress = Progress(self.title, self.num_steps, "step", initial=first_step)
        with progress, wall.during("useful_steps"), self.profiler:
            for step in range(first_step + 1, self.num_steps + 1):
                last = step == self.num_steps
                with wall.during("other"):
                    self.profiler.before(step, state)
                with wall.during("input_wait"):
                    batch = next(batches)
                placed = shard_batch(batch, self.trainer.mesh)
                # The frames of this process stand for those of all.
                with clock.step(*placed.valid_BT.shape, real_share=float(batch.valid_BT.mean())):
                    state, metrics = self.trainer.step(state, placed)
                shown = {}
                if step % self.log_every == 0 or last:
                    metrics = {TRAIN_PREFIX + name: float(value) for name, value in jax.device_get(metrics).items()}
                    metrics["train/learning_rate"] = float(self.learning_rate(step - 1))
                    if not np.isfinite(metrics["train/loss"]):
                        raise FloatingPointError(
                            f"{self.title}: the loss at step {step} is {metrics['train/loss']}; lower "
                            f"optimizer.peak_lr or set optimizer.clip_norm, and start again from the last checkpoint"
                        )
                    self.writer.write(step, metrics | clock.rates() | peak_memory())
                    shown = {name: metrics["train/" + name] for name in ("loss", "masked_accuracy", "accuracy")
                             if "train/" + name in metrics}  # fmt: skip
                evaluated = not (step % self.eval_every == 0 or last)
                try:
                    check_stop()
                    # Evaluate before saving: the best value is part of the checkpoint.
                    if not evaluated:
                        evaluate(step)
                        evaluated = True
                except Stopped:
                    save(step)
                    saved.wait()
                    log(f"{self.title}: asked to stop; saved step {step} of {self.num_steps}")
                    raise
                if step % self.checkpoint.every_steps == 0 or last:
                    save(step)
                progress.update(1, **shown)
        with wall.during("saving"):
            saved.wait()
        wall.switch("other")
        if self.select_by:
            state, _ = best.restore(state)
        saved.close()
        best.close()
        return state
