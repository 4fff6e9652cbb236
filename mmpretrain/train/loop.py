"""The training loop of every objective, read from top to bottom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mmpretrain.config import CheckpointConfig
from mmpretrain.observe.clock import StepClock
from mmpretrain.observe.memory import peak_memory
from mmpretrain.observe.metric_log import MetricWriter
from mmpretrain.observe.profiling import Profiler
from mmpretrain.observe.progress import Progress, log
from mmpretrain.parallel.mesh import shard_batch
from mmpretrain.parallel.stopping import Stopped, check_stop
from mmpretrain.train.best import Best, BestBy
from mmpretrain.train.checkpoint import Checkpointer
from mmpretrain.train.guard import Verdicts, released
from mmpretrain.train.step import TrainState
from mmpretrain.train.training import Training

TRAIN_PREFIX = "train/"


@dataclasses.dataclass(frozen=True)
class Loop:
    """A training run with all that goes on beside its steps.

    evaluate(state): metrics by full name, such as `validation/loss`; called every `eval_every` steps and at the end.
    best_by: the metric whose best state is kept as well (None: only the last). evaluate_start: the state before the
    first step is evaluated too, and may be the best.
    """

    training: Training
    evaluate: Callable[[TrainState], dict[str, float]]
    writer: MetricWriter
    clock: StepClock
    profiler: Profiler
    workdir: Path
    title: str
    log_every: int
    eval_every: int
    checkpoint: CheckpointConfig
    best_by: BestBy | None = None
    evaluate_start: bool = False

    @property
    def folder(self) -> Path:
        return self.workdir / self.training.name

    def run(self) -> TrainState:
        """Trains from this folder's latest checkpoint, or from the start, to `num_steps`, and returns the last state.

        Everything but timings is the same however often the run was interrupted. Raises Stopped, after saving, if it
        was asked to stop, and FloatingPointError, after saving the state before it, at a bad step (guard.py).
        """
        training, trainer, num_steps = self.training, self.training.trainer, self.training.num_steps
        clock, wall = self.clock, self.clock.wall
        wall.switch("startup")
        saved = Checkpointer(self.folder / "checkpoints", keep=self.checkpoint.keep)
        best = Best(self.folder, self.best_by)
        state, evaluated, num_records, useful_sec = trainer.init(training.seed), True, 0, 0.0
        if saved.latest() is None:
            state, evaluated = training.initialize(state), not self.evaluate_start
        else:
            state, extra = saved.restore(state)
            evaluated, num_records, useful_sec = extra["evaluated"], extra["num_records"], extra["useful_sec"]
            best.resume(extra)
        first_step = int(state.step)
        # What was done and logged after the checkpoint is about to happen again.
        self.writer.resume(num_records, first_step)
        clock.resume(useful_sec)
        verdicts = Verdicts()

        def evaluate(step: int) -> None:
            with wall.during("evaluation"):
                values = self.evaluate(state)
            self.writer.write(step, values)
            with wall.during("saving"):
                best.offer(step, state, values)

        def save(step: int) -> None:
            extra = {"evaluated": evaluated, "num_records": self.writer.num_records}
            extra["useful_sec"] = wall.seconds()["useful_steps"]
            with wall.during("saving"):
                saved.save(step, state, extra | best.known())
            wall.save()

        def stop_if_halted() -> None:
            """Before anything is kept of a state: a bad step may have halted it some steps ago."""
            nonlocal state
            passed_over, halted = verdicts.look()
            if passed_over:
                log(f"{self.title}: passed over {', '.join(map(str, passed_over))}")
            if halted is None:
                return
            usual = float(state.guard.usual_loss)
            state = dataclasses.replace(state, guard=released(state.guard))
            if saved.latest() != halted.step - 1:
                save(halted.step - 1)
            saved.wait()
            replay = f"mmpretrain replay {self.workdir} --stage={training.name} --step={halted.step}"
            raise FloatingPointError(halted.message(self.title, usual, training.batches.clip_ids(halted.step), replay))

        if not evaluated:  # the start is to be, or it was stopped before the evaluation that was due, or in it
            evaluate(first_step)
            evaluated = True
        batches = training.batches(first_step)
        progress = Progress(self.title, num_steps, "step", initial=first_step)
        with progress, wall.during("useful_steps"), self.profiler:
            for step in range(first_step + 1, num_steps + 1):
                with wall.during("other"):
                    self.profiler.before(step, state)
                with wall.during("input_wait"):
                    batch = next(batches)
                placed = shard_batch(batch, trainer.mesh)
                # The frames of this process stand for those of all.
                with clock.step(*placed.valid_BT.shape, real_share=float(batch.valid_BT.mean())):
                    state, metrics = trainer.step(state, placed)
                verdicts.add(step, metrics)
                log_due, evaluation_due, save_due = (
                    step % every == 0 or step == num_steps
                    for every in (self.log_every, self.eval_every, self.checkpoint.every_steps)
                )
                if log_due or evaluation_due or save_due:
                    stop_if_halted()
                shown = self._write(step, jax.device_get(metrics)) if log_due else {}
                evaluated = not evaluation_due
                try:
                    check_stop()
                    # Evaluate before saving: the best value is part of the checkpoint.
                    if not evaluated:
                        evaluate(step)
                        evaluated = True
                except Stopped:
                    stop_if_halted()
                    save(step)
                    saved.wait()
                    log(f"{self.title}: asked to stop; saved step {step} of {num_steps}")
                    raise
                if save_due:
                    save(step)
                progress.update(1, **shown)
        with wall.during("saving"):
            saved.wait()
        wall.switch("other")
        saved.close()
        best.close()
        return state

    def best(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state that was best by `best_by`, placed as `like` is (its shapes are enough), its step and metrics."""
        best = Best(self.folder, self.best_by)
        state, values = best.restore(like)
        best.close()
        return state, values

    def _write(self, step: int, metrics: dict[str, Any]) -> dict[str, float]:
        """Writes a record of the step and returns what of it is worth showing."""
        metrics = {name: float(value) for name, value in metrics.items() if name != "verdict"}
        # A step that was passed over is no update: the rate goes on where it was.
        rate = float(self.training.learning_rate(step - 1 - int(metrics["passed_over"])))
        record = {TRAIN_PREFIX + name: value for name, value in (metrics | {"learning_rate": rate}).items()}
        self.writer.write(step, record | self.clock.rates() | peak_memory())
        return {name: metrics[name] for name in self.training.trainer.objective.shown if name in metrics}
