"""What a plan has, loaded in order by threads that work ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from threadpoolctl import threadpool_limits

from mmpretrain.data.batch_plan import BatchPlan, EvaluationPlan

Planned = TypeVar("Planned")  # usually a PlannedBatch
Loaded = TypeVar("Loaded")  # usually a Batch


def iterate(
    plan: BatchPlan | EvaluationPlan | Sequence[Planned],
    load: Callable[[Planned], Loaded],
    *,
    first_step: int,
    num_steps: int,
    num_workers: int,
) -> Iterator[tuple[Planned, Loaded]]:
    """Pairs (planned, loaded) of the steps first_step, ..., num_steps - 1, in this order.

    `num_workers` threads load steps ahead of the caller, at most two each; with 0 the caller's own thread loads. If
    `load` fails at a step, its error is raised when the caller reaches that step. The threads end when the caller is
    through, closes the iterator or drops it.
    """
    import grain

    def load_step(step: int) -> tuple[Planned, Loaded]:
        planned = plan[step]
        return planned, load(planned)

    steps = grain.MapDataset.range(first_step, num_steps).map(load_step)
    options = grain.ReadOptions(num_threads=num_workers, prefetch_buffer_size=2 * num_workers)
    # Loading threads are the parallelism: those of BLAS on top of them make the filterbank several times slower.
    with threadpool_limits(1, "blas"), contextlib.closing(iter(steps.to_iter_dataset(options))) as batches:
        yield from batches
