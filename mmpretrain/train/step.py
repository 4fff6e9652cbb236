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

from mmpretrain.data.records import Batch
from mmpretrain.objectives.base import Objective, Sums
from mmpretrain.parallel.mesh import batch_sharding, replicated, shardings
from mmpretrain.parallel.streams import stream_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
    """All that a step changes. `params` and `stats` are Flax states; `step` counts completed updates."""

    step: jax.Array
    params: nnx.State
    stats: nnx.State
    opt_state: Any
    key: jax.Array  # the run's seed as raw key data; never changes


@dataclasses.dataclass(frozen=True)
class Trainer:
    """An objective and an optimizer compiled for a mesh. `step` and `evaluate` retrace once per batch shape."""

    graphdef: nnx.GraphDef
    objective: Objective
    mesh: Mesh
    init: Callable[[int], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[[TrainState, Batch], Sums]

    def model(self, state: TrainState) -> nnx.Module:
        return nnx.merge(self.graphdef, state.params, state.stats)


def make_trainer(objective: Objective, tx: optax.GradientTransformation, mesh: Mesh) -> Trainer:
    """Compiles nothing yet. `init(seed)` returns a state whose arrays are created on their devices."""
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: objective.make_model(nnx.Rngs(0))), nnx.Param, nnx.BatchStat)

    def make(seed: jax.Array) -> TrainState:
        key = jax.random.key(seed)
        model = objective.make_model(nnx.Rngs(params=stream_key(key, 0, "init")))
        _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        return TrainState(jnp.zeros([], jnp.int32), params, stats, tx.init(params), jax.random.key_data(key))

    def run(state: TrainState, params: nnx.State, batch: Batch, *, train: bool) -> tuple[Sums, nnx.State]:
        model = nnx.merge(graphdef, params, state.stats, copy=True)
        key = jax.random.wrap_key_data(state.key)
        # Validation draws the same masks at every step, so that its curve shows the model and not the draw.
        draws = objective.draw(stream_key(key, state.step if train else 0, "masks"), batch)
        sums = objective(model, batch, draws, stream_key(key, state.step, "dropout") if train else None)
        return sums, nnx.state(model, nnx.BatchStat)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """One optimizer update. The loss is a sum over the global batch, divided by its global weight."""

        def loss_sum(params):
            sums, stats = run(state, params, batch, train=True)
            return sums.loss, (sums, stats)

        grads, (sums, stats) = jax.grad(loss_sum, has_aux=True)(state.params)
        weight = jnp.maximum(sums.weight, 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = mean_metrics(sums) | {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        return TrainState(state.step + 1, params, stats, opt_state, state.key), metrics

    def evaluate(state: TrainState, batch: Batch) -> Sums:
        return run(state, state.params, batch, train=False)[0]

    placed, clips, everywhere = shardings(jax.eval_shape(make, 0), mesh), batch_sharding(mesh), replicated(mesh)
    return Trainer(
        graphdef, objective, mesh, jax.jit(make, out_shardings=placed),
        jax.jit(step, donate_argnums=0, in_shardings=(placed, clips), out_shardings=(placed, everywhere)),
        jax.jit(evaluate, in_shardings=(placed, clips), out_shardings=everywhere),
    )  # fmt: skip


def mean_metrics(sums: Sums) -> dict[str, jax.Array]:
    """Sums divided by their counts; a metric without a count is 0."""
    means = {name: total / jnp.maximum(count, 1.0) for name, (total, count) in sums.metrics.items()}
    return {"loss": sums.loss / jnp.maximum(sums.weight, 1.0)} | means
