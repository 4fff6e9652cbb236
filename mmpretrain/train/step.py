"""The one training step, and the one evaluation step, of every objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from mmpretrain.config import HealthConfig
from mmpretrain.objectives.base import Objective, Sums
from mmpretrain.parallel.mesh import batch_sharding, cut_batch, replicated, shardings
from mmpretrain.randomness import stream_key
from mmpretrain.records import Batch
from mmpretrain.train.guard import GOOD, HALTED, Guard, judge


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
    """All that a step changes. `params` and `stats` are Flax states; `step` counts steps, passed over ones included."""

    step: jax.Array
    params: nnx.State
    stats: nnx.State
    opt_state: Any
    key: jax.Array  # the run's seed as raw key data; never changes
    guard: Guard


@dataclasses.dataclass(frozen=True)
class Trainer:
    """An objective and an optimizer compiled for a mesh. All functions of a batch retrace once per batch shape.

    inspect(model, state, batch): the objective's sums in the training step that `state` is before, for a look inside
    `model`, that state's; to be traced. gradient: of the mean loss, before clipping.
    """

    graphdef: nnx.GraphDef
    objective: Objective
    mesh: Mesh
    init: Callable[[int], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[[TrainState, Batch], Sums]
    gradient: Callable[[TrainState, Batch], nnx.State]
    inspect: Callable[[nnx.Module, TrainState, Batch], Sums]

    def model(self, state: TrainState) -> nnx.Module:
        return nnx.merge(self.graphdef, state.params, state.stats)


def make_trainer(
    objective: Objective,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    micro_batches: int = 1,
    health: HealthConfig | None = None,
) -> Trainer:
    """Compiles nothing yet. `init(seed)` returns a state whose arrays are created on their devices.

    micro_batches: the parts, one after another, that a step cuts its batch into. They save memory and change nothing
    but batch statistics, which are of a part, and dropout, which is drawn for a part. health: which steps are bad.
    """
    health = health or HealthConfig()
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: objective.make_model(nnx.Rngs(0))), nnx.Param, nnx.BatchStat)

    def make(seed: jax.Array) -> TrainState:
        key = jax.random.key(seed)
        model = objective.make_model(nnx.Rngs(params=stream_key(key, 0, "init")))
        _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        step = jnp.zeros([], jnp.int32)
        return TrainState(step, params, stats, tx.init(params), jax.random.key_data(key), Guard.fresh())

    placed, clips, everywhere = shardings(jax.eval_shape(make, 0), mesh), batch_sharding(mesh), replicated(mesh)

    def draw(state: TrainState, batch: Batch, *, train: bool) -> tuple[Any, jax.Array | None]:
        """All that is random about a step: what the objective draws, and the key of dropout."""
        key = jax.random.wrap_key_data(state.key)
        # Validation draws the same masks at every step, so that its curve shows the model and not the draw.
        draws = objective.draw(stream_key(key, state.step if train else 0, "masks"), batch)
        return draws, stream_key(key, state.step, "dropout") if train else None

    def summed_gradient(state: TrainState, batch: Batch) -> tuple[nnx.State, Sums, nnx.State]:
        """The gradient of the loss as a sum over the global batch, the sums, and the batch statistics after it."""
        draws, dropout_key = draw(state, batch, train=True)
        counts = objective.counts(batch, draws)

        def of_part(part: Batch, draws: Any, dropout_key: jax.Array) -> tuple[nnx.State, Sums, nnx.State]:
            def loss(params: nnx.State):
                model = nnx.merge(graphdef, params, state.stats, copy=True)
                sums = objective(model, part, draws, dropout_key, counts)
                return sums.loss, (sums, nnx.state(model, nnx.BatchStat))

            grads, (sums, stats) = jax.grad(loss, has_aux=True)(state.params)
            return jax.lax.with_sharding_constraint(grads, placed.params), sums, stats

        if micro_batches == 1:
            return of_part(batch, draws, dropout_key)
        parts, keys = cut_batch((batch, draws), micro_batches, mesh), jax.random.split(dropout_key, micro_batches)

        def add(totals, inputs):
            (part, draws), key = inputs
            return jax.tree.map(jnp.add, totals, of_part(part, draws, key)), None

        shapes = jax.eval_shape(lambda: of_part(*jax.tree.map(lambda x: x[0], parts), keys[0]))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (grads, sums, stats), _ = jax.lax.scan(add, zeros, (parts, keys))
        # Every part moved the running averages from where the step began; so does their mean.
        return grads, sums, jax.tree.map(lambda x: x / micro_batches, stats)

    def mean_gradient(state: TrainState, batch: Batch) -> tuple[nnx.State, Sums, nnx.State]:
        grads, sums, stats = summed_gradient(state, batch)
        weight = jnp.maximum(sums.weight, 1.0)
        return jax.tree.map(lambda g: g / weight, grads), sums, stats

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """One optimizer update. The loss is a sum over the global batch, divided by its global weight.

        A bad step (`guard.py`) updates nothing; one that is passed over counts, one that halts the run does not.
        """
        grads, sums, stats = mean_gradient(state, batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = mean_metrics(sums) | {"grad_norm": optax.tree.norm(grads)}
        guard, verdict = judge(
            state.guard, health, step=state.step, loss=metrics["loss"], grad_norm=metrics["grad_norm"]
        )
        new, old = (params, stats, opt_state), (state.params, state.stats, state.opt_state)
        params, stats, opt_state = jax.tree.map(lambda n, o: jnp.where(verdict == GOOD, n, o), new, old)
        number = state.step + (verdict != HALTED)
        metrics |= {"param_norm": optax.tree.norm(params), "passed_over": guard.passed_over, "verdict": verdict}
        return TrainState(number, params, stats, opt_state, state.key, guard), metrics

    def inspect(model: nnx.Module, state: TrainState, batch: Batch) -> Sums:
        return objective(model, batch, *draw(state, batch, train=True))

    def evaluate(state: TrainState, batch: Batch) -> Sums:
        model = nnx.merge(graphdef, state.params, state.stats, copy=True)
        return objective(model, batch, *draw(state, batch, train=False))

    inputs = (placed, clips)
    return Trainer(
        graphdef, objective, mesh, jax.jit(make, out_shardings=placed),
        jax.jit(step, donate_argnums=0, in_shardings=inputs, out_shardings=(placed, everywhere)),
        jax.jit(evaluate, in_shardings=inputs, out_shardings=everywhere),
        jax.jit(lambda *given: mean_gradient(*given)[0], in_shardings=inputs, out_shardings=placed.params),
        inspect,
    )  # fmt: skip


def mean_metrics(sums: Sums) -> dict[str, jax.Array]:
    """Sums divided by their counts; a metric without a count is 0."""
    means = {name: total / jnp.maximum(count, 1.0) for name, (total, count) in sums.metrics.items()}
    return {"loss": sums.loss / jnp.maximum(sums.weight, 1.0)} | means
