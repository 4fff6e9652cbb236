"""Learning-rate schedules, clipping and Adam as the reference computes them (spec, section 10)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmpretrain.config import OptimizerConfig
from mmpretrain.train.trainable import EVERYTHING, Trainable

TRI_STAGE_START = 0.01  # of the peak rate
TRI_STAGE_END = 0.05


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """The rate of the update that follows `n` completed ones.

    polynomial: linear from 0 to the peak over the warm-up (so its very first update has rate 0), then linear to 0.
    tri_stage: linear from 1 % of the peak, then exponentially to 5 % over the rest.
    """
    peak, warmup = config.peak_lr, config.warmup_steps
    if config.schedule == "polynomial":
        return lambda n: jnp.where(
            n < warmup,
            peak * n / max(warmup, 1),
            peak * jnp.clip((num_steps - n) / max(num_steps - warmup, 1), 0, 1),
        )
    decay = max(num_steps - warmup, 1)
    return lambda n: jnp.where(
        n < warmup,
        peak * (TRI_STAGE_START + (1 - TRI_STAGE_START) * n / max(warmup, 1)),
        peak * TRI_STAGE_END ** (jnp.clip(n - warmup, 0, decay) / decay),
    )


class AdamState(NamedTuple):
    """ages: how often the parameters of each phase have been updated, int32. mu, nu: the moments."""

    ages: dict[int, jax.Array]
    mu: optax.Updates
    nu: optax.Updates


def scale_by_adam(
    b1: float, b2: float, eps: float, trainable: Trainable = EVERYTHING
) -> optax.GradientTransformationExtraArgs:
    """Adam with epsilon added to the root of the uncorrected second moment: sqrt(1-b2^t)/(1-b1^t) m/(sqrt(v)+eps).

    t counts the updates of a parameter since it began to learn; before that its gradient must be 0.
    """

    def init(params):
        ages = {start: jnp.zeros([], jnp.int32) for start in trainable.phases}
        return AdamState(ages, jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params=None, *, phase: int = 0, **extra):
        del params, extra
        ages = {start: age + 1 if start <= phase else age for start, age in state.ages.items()}
        if trainable.waiting:
            grads = _where_learning(trainable, ages, grads)
        starts, waits = trainable.of_each(grads, "from_step"), trainable.waits(grads)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)

        def correction(age: jax.Array) -> jax.Array:
            return jnp.sqrt(1 - b2**age) / (1 - b1**age)

        corrections = {start: correction(age) for start, age in ages.items() if start <= phase}

        def scale(start: int, wait: int | np.ndarray, m: jax.Array, v: jax.Array) -> jax.Array:
            if start > phase:
                return 0 * m
            at_once = isinstance(wait, int)
            factor = corrections[start] if at_once else correction(jnp.maximum(ages[start] - wait, 1))
            return factor * m / (jnp.sqrt(v) + eps)

        return jax.tree.map(scale, starts, waits, mu, nu), AdamState(ages, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Scales by min(1, max_norm / (norm + 1e-6)). `update` takes the norm as `grad_norm` where it is known."""

    def update(grads, state, params=None, *, grad_norm: jax.Array | None = None, **extra):
        del params, extra
        norm = optax.tree.norm(grads) if grad_norm is None else grad_norm
        factor = jnp.minimum(1.0, max_norm / (norm + 1e-6))
        return jax.tree.map(lambda g: g * factor, grads), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _where_learning(trainable: Trainable, ages: dict[int, jax.Array], updates: optax.Updates) -> optax.Updates:
    """0 in place of the updates of layers that still wait. ages: the updates that each phase has seen, with this."""

    def keep(start: int, wait: int | np.ndarray, u: jax.Array) -> jax.Array:
        return u if isinstance(wait, int) else jnp.where(ages[start] > wait, u, 0)

    return jax.tree.map(keep, trainable.of_each(updates, "from_step"), trainable.waits(updates), updates)


def hold_back(trainable: Trainable) -> optax.GradientTransformationExtraArgs:
    """No update, weight decay included, for layers that still wait."""

    def init(params):
        del params
        return {start: jnp.zeros([], jnp.int32) for start in trainable.phases}

    def update(updates, ages, params=None, *, phase: int = 0, **extra):
        del params, extra
        ages = {start: age + 1 if start <= phase else age for start, age in ages.items()}
        return _where_learning(trainable, ages, updates), ages

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_rate(trainable: Trainable) -> optax.GradientTransformation:
    """Each parameter's update times the rate of its group."""

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda rate, u: u * rate, trainable.rates(updates), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(
    config: OptimizerConfig, num_steps: int, trainable: Trainable = EVERYTHING
) -> optax.GradientTransformationExtraArgs:
    """Clip, Adam, decoupled weight decay, rate: for the parameters that ever learn."""
    parts = [clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    parts.append(scale_by_adam(config.b1, config.b2, config.eps, trainable))
    if config.weight_decay > 0:
        decays = None if all(g.decays for g in trainable.groups) else lambda params: trainable.of_each(params, "decays")
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decays))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, num_steps)))
    if any(group.rate != 1.0 or group.layer_rates for group in trainable.groups):
        parts.append(scale_by_rate(trainable))
    if trainable.waiting:
        parts.append(hold_back(trainable))
    return optax.with_extra_args_support(optax.chain(*parts))
