"""What the one training step asks of an objective."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
from flax import nnx

from mmpretrain.data.records import Batch


class Sums(NamedTuple):
    """What an objective says of a batch: all sums over the global batch, so that batches of an epoch can be added up.

    loss: to be divided by `weight`, the number of things it is a sum over. metrics: name -> (sum, count). (A penalty on
    the whole batch, such as that on the features, enters the loss times the weight, as in the reference: its part of an
    epoch's loss depends a little on how the clips were batched.)
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]]


class Objective(Protocol):
    """A model, what is random about a batch, and the loss of the two."""

    def make_model(self, rngs: nnx.Rngs) -> nnx.Module: ...

    def draw(self, key: jax.Array, batch: Batch) -> Any:
        """Everything random but dropout, as arrays: a test can hand in its own."""

    def __call__(self, model: nnx.Module, batch: Batch, draws: Any, dropout_key: jax.Array | None) -> Sums:
        """dropout_key: None in evaluation, which also freezes the batch statistics."""
