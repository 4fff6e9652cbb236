"""The metrics of a state over many batches, such as all validation clips."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import numpy as np

from mmpretrain.objectives.base import Sums
from mmpretrain.parallel.flight import one_behind
from mmpretrain.parallel.mesh import shard_batch
from mmpretrain.records import Batch
from mmpretrain.train.step import Trainer, TrainState


def validate(trainer: Trainer, state: TrainState, batches: Iterable[Batch]) -> dict[str, float]:
    """The objective's metrics over all clips of `batches`, as `validation/NAME`; empty if there is none.

    While the sums of one batch are read the devices work on the next.
    """
    total: Sums | None = None
    for begun in one_behind(trainer.evaluate(state, shard_batch(batch, trainer.mesh)) for batch in batches):
        sums = jax.device_get(begun)
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    metrics = {} if total is None else trainer.objective.summarize(total)
    return {f"validation/{name}": float(value) for name, value in metrics.items()}
