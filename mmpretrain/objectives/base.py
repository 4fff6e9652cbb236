"""What the one training step asks of an objective."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.records import Batch

Better = Literal["lower", "higher"]


class Sums(NamedTuple):
    """What an objective says of a batch or of a part of one: all sums, so that parts and batches can be added up.

    loss: to be divided by `weight`, the number of things it is a sum over. metrics: name -> (sum, count). more: any
    other sums that `summarize` or `after_update` needs, such as the moments of a correlation.
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]]
    more: Any = None


class Objective(abc.ABC):
    """A model, what is random about a batch, the loss of the two, and what is kept beside the parameters.

    better: for every metric by which a state can be chosen, which values are better. shown: those worth a glance while
    it trains.

    Variables of the model that are no `nnx.Param` are kept beside the parameters: sharded like them by their `axes`,
    saved, and left alone by a bad step. The loss may change batch statistics alone; whatever else is kept (a teacher's
    weights, a codebook) changes in `after_update`.
    """

    better: ClassVar[Mapping[str, Better]] = {"loss": "lower"}
    shown: ClassVar[tuple[str, ...]] = ("loss",)

    @abc.abstractmethod
    def make_model(self, rngs: nnx.Rngs) -> nnx.Module:
        """The network, with everything that is kept; its part `encoder`, an `AVEncoder`, is what a stage leaves."""

    def draw(self, keys_B: jax.Array, batch: Batch, *, step: jax.Array, train: bool) -> Any:
        """Everything random but dropout, as arrays whose leading dim is clips: a test can hand in its own.

        keys_B: a key for each clip, in training of the step as well, in evaluation of the clip alone. What is drawn for
        a validation clip is hence the same each time, in whatever order, batch or mesh it comes. step: int32, how many
        steps there were before this one. By default nothing is drawn.
        """
        return None

    def counts(self, batch: Batch, draws: Any) -> Any:
        """What the loss of a part of a batch must know of the whole batch, as sums; needs no network. None: nothing."""
        return None

    @abc.abstractmethod
    def loss(
        self, model: nnx.Module, batch: Batch, draws: Any, key: jax.Array | None, *, train: bool, counts: Any = None
    ) -> Sums:
        """The sums of a batch; those of its parts add up to them.

        key: of dropout; None: there is none. train: whether batch statistics are of this batch, and move. counts: of
        the batch that this is a part of; None: it is whole.
        """

    def summarize(self, sums: Sums) -> dict[str, jax.Array]:
        """The metrics by name, out of the sums of one or of many batches."""
        return mean_metrics(sums)

    def after_update(self, model: nnx.Module, sums: Sums, step: jax.Array) -> None:
        """Changes what `model`, after the update, keeps beside its parameters. sums: of the whole batch. By default
        nothing changes."""
        return None


def total(x: jax.Array | int, where: jax.Array) -> jax.Array:
    """The sum of x over what is marked, such as the clips that have a label, float32."""
    return jnp.where(where, x, 0).sum(dtype=jnp.float32)


def mean_metrics(sums: Sums) -> dict[str, jax.Array]:
    """Sums divided by their counts; a metric without a count is 0."""
    pairs = {"loss": (sums.loss, sums.weight), **sums.metrics}
    return {name: total / (count + (count == 0)) for name, (total, count) in pairs.items()}
