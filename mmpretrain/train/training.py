"""What decides every step of a training run: the loop runs them all, a replay one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from mmpretrain.records import Batch
from mmpretrain.train.step import Trainer, TrainState


class Batches(Protocol):
    def __call__(self, first_step: int) -> Iterator[Batch]:
        """This process's share of the batches that come after `first_step` completed steps."""

    def clip_ids(self, step: int) -> list[str]:
        """Of the whole batch of `step`, counted from 1."""


@dataclasses.dataclass(frozen=True)
class Training:
    """name: of the stage, such as "round1/pretrain". learning_rate(n): of the update that follows n others.

    initialize(state): changes the fresh state once, e.g. puts an encoder in.
    """

    name: str
    trainer: Trainer
    batches: Batches
    num_steps: int
    seed: int
    learning_rate: Callable[[int], Any]
    initialize: Callable[[TrainState], TrainState] = lambda state: state
