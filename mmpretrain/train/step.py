"""The one training step, and the one evaluation step, of every objective."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from mmpretrain import compiler
from mmpretrain.config import HealthConfig
from mmpretrain.models.resnet import narrowest
from mmpretrain.models.sharing import run_if, share_out
from mmpretrain.objectives.base import Objective, Sums
from mmpretrain.parallel.mesh import FrameShares, batch_sharding, cut_batch, replicated, shardings
from mmpretrain.randomness import keys_of, named, seed_key, stream_key
from mmpretrain.records import Batch
from mmpretrain.train.guard import GOOD, HALTED, Guard, judge
from mmpretrain.train.trainable import EVERYTHING, Trainable

Metrics = dict[str, jax.Array]
NOT_PARAMETER = nnx.Not(nnx.Param)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
    """All that a step changes.

    params: Flax state of all parameters, those that do not learn included. kept: all other variables of the model:
    batch statistics, and whatever the objective keeps beside. step: how many there were, passed over ones included.
    """

    step: jax.Array
    params: nnx.State
    kept: nnx.State
    opt_state: Any
    key: jax.Array  # that of the stage's seed as raw data; never changes
    guard: Guard


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """An objective and an optimizer on a mesh. All functions of a batch are compiled once per batch shape.

    micro_batches: the parts, one after another, that a step cuts its batch into. They save memory and change nothing
    but batch statistics, which are of a part, and dropout, which is drawn for a part. health: which steps are bad.
    """

    objective: Objective
    tx: optax.GradientTransformation
    mesh: Mesh
    trainable: Trainable = EVERYTHING
    micro_batches: int = 1
    health: HealthConfig = dataclasses.field(default_factory=HealthConfig)

    @functools.cached_property
    def graphdef(self) -> nnx.GraphDef:
        return nnx.split(nnx.eval_shape(lambda: self.objective.make_model(nnx.Rngs(0))), nnx.Param, ...)[0]

    @functools.cached_property
    def placed(self) -> TrainState:
        """The sharding of every array of a state."""
        return shardings(self.shapes, self.mesh)

    @functools.cached_property
    def shapes(self) -> TrainState:
        """The shape and dtype of every array of a state."""
        return jax.eval_shape(functools.partial(new_state, self), jax.random.key_data(seed_key(0)))

    def init(self, seed: int) -> TrainState:
        """A fresh state, whose arrays are made where they belong."""
        return self._init(np.asarray(jax.random.key_data(seed_key(seed))))

    @functools.cached_property
    def _init(self) -> Callable[[np.ndarray], TrainState]:
        options = compiler.for_one_run(FrameShares(self.mesh).platform)
        return jax.jit(functools.partial(new_state, self), out_shardings=self.placed, compiler_options=options)

    @functools.cached_property
    def step(self) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
        """step(state, batch): see `train_step`. The state that is handed in is used up."""
        out = (self.placed, replicated(self.mesh))
        options = compiler.for_step(FrameShares(self.mesh).platform, narrowest(self.model(self.shapes)))
        return self._of_batch(train_step, donate_argnums=0, out_shardings=out, compiler_options=options)

    @functools.cached_property
    def evaluate(self) -> Callable[[TrainState, Batch], Sums]:
        """evaluate(state, batch): see `eval_step`."""
        options = compiler.for_forward(FrameShares(self.mesh).platform)
        return self._of_batch(eval_step, out_shardings=replicated(self.mesh), compiler_options=options)

    def gradient(self, phase: int) -> Callable[[TrainState, Batch], nnx.State]:
        """A function (state, batch) -> the gradient of the mean loss, before clipping, for what learns in a phase."""
        placed, _ = self.trainable.split(self.placed.params, phase)
        return self._of_batch(lambda *given: mean_gradient(*given, phase=phase)[0], out_shardings=placed)

    def _of_batch(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        inputs = (self.placed, batch_sharding(self.mesh))
        return jax.jit(functools.partial(function, self), in_shardings=inputs, **options)

    def model(self, state: TrainState) -> nnx.Module:
        """The network with the weights of a state."""
        return nnx.merge(self.graphdef, state.params, state.kept)

    def with_model(self, state: TrainState, model: nnx.Module) -> TrainState:
        """The state with the weights of `model`, and what it keeps beside them, in place of its own."""
        _, params, kept = nnx.split(model, nnx.Param, ...)
        return dataclasses.replace(state, params=params, kept=kept)

    def for_training(self, model: nnx.Module, phase: int) -> None:
        """Tells `model` which of its batch norms are still in a phase, and how the mesh shares its pictures out."""
        self.trainable.hold_still(model, phase)
        share_out(model, FrameShares(self.mesh))

    def inspect(self, model: nnx.Module, state: TrainState, batch: Batch, *, phase: int) -> Sums:
        """The sums of the step that comes after `state`, which is of `phase`, computed with the network `model`.

        A caller can look into its layers.
        """
        self.for_training(model, phase)
        draws, key = draw(self, state, batch, train=True)
        return self.objective.loss(model, batch, draws, key, train=True)


def new_state(trainer: Trainer, key: jax.Array) -> TrainState:
    """The state before the first step. key: raw data."""
    init_key = named(jax.random.wrap_key_data(key), "init")
    model = trainer.objective.make_model(nnx.Rngs(params=init_key))
    _, params, kept = nnx.split(model, nnx.Param, ...)
    opt_state = trainer.tx.init(trainer.trainable.split(params)[0])
    return TrainState(jnp.zeros([], jnp.int32), params, kept, opt_state, key, Guard.fresh())


def train_step(trainer: Trainer, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One optimizer update. The loss is a sum over the global batch, divided by its global weight.

    A bad step (`guard.py`) updates nothing; one that is passed over counts, one that halts the run does not.
    """
    phases = trainer.trainable.phases
    if len(phases) == 1:
        return update(trainer, state, batch, phase=0)
    branches = [functools.partial(update, trainer, phase=phase) for phase in phases]
    return jax.lax.switch(sum(state.step >= start for start in phases[1:]), branches, state, batch)


def update(trainer: Trainer, state: TrainState, batch: Batch, *, phase: int) -> tuple[TrainState, Metrics]:
    """`train_step` with the parameters that learn in the phase that begins at step `phase`."""
    split, objective = trainer.trainable.split, trainer.objective
    grads, sums, kept = mean_gradient(trainer, state, batch, phase=phase)
    grad_norm = optax.tree.norm(grads)
    metrics = objective.summarize(sums) | {"grad_norm": grad_norm}
    guard, verdict = judge(state.guard, trainer.health, step=state.step, loss=metrics["loss"], grad_norm=grad_norm)

    def move() -> tuple[nnx.State, nnx.State, Any]:
        # The optimizer knows all that ever learn. What does not yet has a gradient of 0, and its update is left out.
        ever, never = split(state.params)
        waiting = split(ever, phase)[1]
        updates, opt_state = trainer.tx.update(
            nnx.merge_state(grads, jax.tree.map(jnp.zeros_like, waiting)),
            state.opt_state, ever, phase=phase, grad_norm=grad_norm,
        )  # fmt: skip
        learning = optax.apply_updates(split(ever, phase)[0], split(updates, phase)[0])
        params = nnx.merge_state(learning, waiting, never)
        model = nnx.merge(trainer.graphdef, params, kept, copy=True)
        objective.after_update(model, sums, state.step)
        return params, nnx.state(model, NOT_PARAMETER), opt_state

    before, platform = (state.params, state.kept, state.opt_state), FrameShares(trainer.mesh).platform
    params, kept, opt_state = run_if(verdict == GOOD, move, before, platform)
    metrics |= {"param_norm": optax.tree.norm(params), "passed_over": guard.passed_over, "verdict": verdict}
    metrics["unreadable_clips"] = ((batch.clip_B >= 0) & ~batch.valid_BT.any(1)).sum()
    return TrainState(state.step + (verdict != HALTED), params, kept, opt_state, state.key, guard), metrics


def eval_step(trainer: Trainer, state: TrainState, batch: Batch) -> Sums:
    """The sums of a batch, without dropout and with the running batch statistics."""
    model = nnx.merge(trainer.graphdef, state.params, state.kept, copy=True)
    share_out(model, FrameShares(trainer.mesh))
    draws, _ = draw(trainer, state, batch, train=False)
    return trainer.objective.loss(model, batch, draws, None, train=False)


def draw(trainer: Trainer, state: TrainState, batch: Batch, *, train: bool) -> tuple[Any, jax.Array | None]:
    """All that is random about a step: what the objective draws, and the key of dropout."""
    key = jax.random.wrap_key_data(state.key)
    # Validation draws the same for a clip at every step, so that its curve shows the model and not the draw.
    of_step = stream_key(key, state.step, "training") if train else named(key, "validation")
    keys_B = keys_of(named(of_step, "draws"), batch.chance_B)
    draws = trainer.objective.draw(keys_B, batch, step=state.step, train=train)
    return draws, named(of_step, "dropout") if train else None


def mean_gradient(
    trainer: Trainer, state: TrainState, batch: Batch, *, phase: int
) -> tuple[nnx.State, Sums, nnx.State]:
    """The gradient of the mean loss for what learns in a phase, the sums, and what is kept with new batch statistics.

    A part of the batch at a time, if the trainer cuts it: masks and counts are of the whole batch, so that the sums of
    the parts add up.
    """
    objective, num_parts = trainer.objective, trainer.micro_batches
    draws, dropout_key = draw(trainer, state, batch, train=True)
    counts = objective.counts(batch, draws)

    def of_part(part: Batch, draws: Any, key: jax.Array) -> tuple[nnx.State, Sums, nnx.State]:
        return _summed_gradient(trainer, state, part, draws, key, counts, phase)

    before, others = nnx.split_state(state.kept, nnx.BatchStat, ...)
    if num_parts == 1:
        grads, sums, stats = of_part(batch, draws, dropout_key)
    else:
        parts = cut_batch((batch, draws), num_parts, trainer.mesh)
        keys = keys_of(dropout_key, jnp.arange(num_parts))

        def one(inputs: Any) -> Any:
            (part, draws), key = inputs
            grads, sums, stats = of_part(part, draws, key)
            return grads, sums, _moves(before, stats)

        def add(totals: Any, inputs: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, totals, one(inputs)), None

        shapes = jax.eval_shape(lambda: one(jax.tree.map(lambda x: x[0], (parts, keys))))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (grads, sums, (moves, movers)), _ = jax.lax.scan(add, zeros, (parts, keys))
        stats = jax.tree.map(lambda old, move, n: old + move / jnp.maximum(n, 1), before, moves, movers)
    share = 1 / (sums.weight + (sums.weight == 0))  # to multiply by: a division is slow where numbers are read once
    return jax.tree.map(lambda g: g * share, grads), sums, nnx.merge_state(others, stats)


def _moves(before: nnx.State, after: nnx.State) -> tuple[nnx.State, nnx.State]:
    """How far a part of a batch moved each batch statistic, and 1 where it moved its module's at all, else 0.

    A part without anything to count, such as one without pictures, leaves all of a module's as they are. It has no say
    in the mean over the parts.
    """
    moves = jax.tree.map(jnp.subtract, after, before)
    moved: dict[tuple[Any, ...], jax.Array] = {}
    for path, move in nnx.to_flat_state(moves):
        moved[path[:-1]] = moved.get(path[:-1], False) | (move[...] != 0).any()
    return moves, nnx.from_flat_state(
        [(path, move.replace(moved[path[:-1]].astype(move.dtype))) for path, move in nnx.to_flat_state(moves)]
    )


def _summed_gradient(
    trainer: Trainer, state: TrainState, part: Batch, draws: Any, key: jax.Array, counts: Any, phase: int
) -> tuple[nnx.State, Sums, nnx.State]:
    """The gradient of the loss as a sum over a batch or a part of one, the sums, and the batch statistics after it."""
    split = trainer.trainable.split
    learning, still = split(state.params, phase)

    def loss(learning: nnx.State) -> tuple[jax.Array, tuple[Sums, nnx.State]]:
        params = nnx.merge_state(learning, still)
        model = nnx.merge(trainer.graphdef, params, state.kept, copy=True)
        trainer.for_training(model, phase)
        sums = trainer.objective.loss(model, part, draws, key, train=True, counts=counts)
        return sums.loss, (sums, nnx.state(model, nnx.BatchStat))

    grads, (sums, stats) = jax.grad(loss, has_aux=True)(learning)
    return jax.lax.with_sharding_constraint(grads, split(trainer.placed.params, phase)[0]), sums, stats
