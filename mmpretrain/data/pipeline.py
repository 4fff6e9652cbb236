"""What a plan has, loaded in order by processes that work ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from mmpretrain.data.batch_plan import BatchPlan, EvaluationPlan
from mmpretrain.data.unreadable import Unreadable
from mmpretrain.data.workers import Workers

Planned = TypeVar("Planned")  # usually a PlannedBatch
Loaded = TypeVar("Loaded")  # usually a Batch

WORTH_SEC = 2.0  # of loading; for less it takes about as long to start workers


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

    The caller's own thread loads the first two steps and, where by these it is done within `WORTH_SEC`, all others;
    else `num_workers` processes load ahead of the caller, at most two steps each (0: none do). load, planned, loaded:
    must pickle. unreadable: what `load` tells of clips that it passes over. If `load` fails at a step, its error is
    raised when the caller reaches that step. The processes end when the caller is through, closes the iterator or drops
    it.
    """
    # Processes are the parallelism: by several threads of BLAS the filterbank is slower, and of other bits.
    blas = ThreadpoolController()
    quickest_sec = float("inf")  # the first step may import and open what others need not
    for step in range(first_step, num_steps):
        began = time.perf_counter()
        planned = plan[step]
        with blas.limit(limits=1, user_api="blas"):
            loaded = load(planned)
        quickest_sec = min(quickest_sec, time.perf_counter() - began)
        left = num_steps - step - 1
        if num_workers and step > first_step and quickest_sec * left > WORTH_SEC:
            break
        yield planned, loaded
    else:
        return
    with Workers(load, min(num_workers, left), unreadable) as workers:
        rest = workers.map(plan, step + 1, num_steps)  # begun, while the caller has this one
        yield planned, loaded
        del loaded
        yield from rest
