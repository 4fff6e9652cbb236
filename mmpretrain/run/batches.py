"""The batches of a training stage, as the loop asks for them, and the fields of the recipe that decide them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from mmpretrain.data.batch_plan import BatchPlan, PlannedBatch
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.pipeline import iterate
from mmpretrain.records import Batch

# Of every training stage. Which clips there are is part of its recipe as their fingerprint.
BATCH_FIELDS = ("data.bucket_frames", "data.batch_multiple", "data.flip", "data.random_crop", "data.noise")


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """The batches of a training run. load: this process's share of a planned one; it pickles."""

    plan: BatchPlan
    table: ClipTable
    load: Callable[[PlannedBatch], Batch]
    num_steps: int
    num_workers: int

    def __call__(self, first_step: int) -> Iterator[Batch]:
        """Those of the steps after `first_step` completed ones, in order."""
        steps = iterate(
            self.plan, self.load, first_step=first_step, num_steps=self.num_steps, num_workers=self.num_workers,
            unreadable=self.table.unreadable,
        )  # fmt: skip
        return (batch for _, batch in steps)

    def clip_ids(self, step: int) -> list[str]:
        """Of the whole batch of `step`, counted from 1."""
        return [self.table.clip_ids[row] for row in self.plan[step - 1].clips]
