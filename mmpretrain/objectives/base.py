"""What the one training step asks of an objective."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
from flax import nnx

from mmpretrain.records import Batch


class Sums(NamedTuple):
    """What an objective says of a batch or of a part of one: all sums, so that parts and batches can be added up.

    loss: to be divided by `weight`, the number of things it is a sum over. metrics: name -> (sum, count).
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]]


class Objective(Protocol):
    """A model, what is random about a batch, and the loss of the two."""

    def make_model(self, rngs: nnx.Rngs) -> nnx.Module: ...

    def draw(self, key: jax.Array, batch: Batch) -> Any:
        """Everything random but dropout, as arrays whose leading dim is clips: a test can hand in its own."""

    def counts(self, batch: Batch, draws: Any) -> Any:
        """What the loss of a part must know of the whole batch, as sums; needs no network."""

    def __call__(
        self, model: nnx.Module, batch: Batch, draws: Any, dropout_key: jax.Array | None, counts: Any = None
    ) -> Sums:
        """dropout_key: None in evaluation, which also freezes the batch statistics. counts: see above; None: `batch` is
        whole. The sums of the parts of a batch add up to those of the batch."""
