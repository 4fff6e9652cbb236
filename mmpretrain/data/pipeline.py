"""What a plan has, loaded in order by processes that work ahead."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from threadpoolctl import threadpool_limits

from mmpretrain.data.batch_plan import BatchPlan, EvaluationPlan
from mmpretrain.data.unreadable import Unreadable
from mmpretrain.data.workers import Workers, ahead

Planned = TypeVar("Planned")  # usually a PlannedBatch
Loaded = TypeVar("Loaded")  # usually a Batch

WORTH_SEC = 6.0  # of loading: for less, processes that import librosa or TFDS take about as long to start


def iterate(
    plan: BatchPlan | EvaluationPlan | Sequence[Planned],
    load: Callable[[Planned], Loaded],
    *,
    first_step: int,
    num_steps: int,
    num_workers: int,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[Planned, Loaded]]:
    """Pairs (planned, loaded) of the steps first_step, ..., num_steps - 1, in this order, the same whoever loads.

    A thread loads ahead of the caller, until that has taken `WORTH_SEC` and as much seems to be left; then
    `num_workers` processes do, at most two steps each (0: the caller itself loads). load, planned, loaded: must pickle.
    unreadable: what `load` tells of clips that it passes over. If `load` fails at a step, its error is raised when the
    caller reaches that step. Thread and processes end when the caller is through, closes the iterator or drops it.
    """

    def load_step(step: int) -> tuple[Planned, Loaded, float]:
        began = time.perf_counter()
        planned = plan[step]
        loaded = load(planned)
        return planned, loaded, time.perf_counter() - began

    step, spent_sec = first_step, 0.0
    with (
        # Processes are the parallelism: by several threads of BLAS the filterbank is slower, and of other bits.
        threadpool_limits(1, "blas"),
        contextlib.closing(ahead(load_step, first_step, num_steps, num_threads=min(num_workers, 1))) as by_thread,
    ):
        for planned, loaded, seconds in by_thread:
            yield planned, loaded
            del loaded
            step, spent_sec = step + 1, spent_sec + seconds
            left_sec = spent_sec / (step - first_step) * (num_steps - step)
            if num_workers and min(spent_sec, left_sec) > WORTH_SEC:
                break
    if step < num_steps:
        with Workers(load, min(num_workers, num_steps - step), unreadable) as workers:
            yield from workers.map(plan, step, num_steps)
