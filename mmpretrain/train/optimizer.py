"""Learning-rate schedules, clipping and Adam as the reference computes them (spec, section 10)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmpretrain.config import OptimizerConfig

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
    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates


def scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam with epsilon added to the root of the uncorrected second moment: sqrt(1-b2^t)/(1-b1^t) m/(sqrt(v)+eps)."""

    def init(params):
        return AdamState(
            jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)
        )

    def update(grads, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        return jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), mu, nu), AdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales by min(1, max_norm / (norm + 1e-6))."""

    def update(grads, state, params=None):
        del params
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(grads) + 1e-6))
        return jax.tree.map(lambda g: g * factor, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class FreezeState(NamedTuple):
    count: jax.Array


def freeze_encoder(num_steps: int) -> optax.GradientTransformation:
    """Holds the parameters under `encoder` still for the first `num_steps` updates."""

    def update(updates, state, params=None):
        del params
        moving = (state.count >= num_steps).astype(jnp.float32)
        updates = jax.tree_util.tree_map_with_path(
            lambda path, u: u * moving if getattr(path[0], "key", None) == "encoder" else u, updates
        )
        return updates, FreezeState(state.count + 1)

    return optax.GradientTransformation(lambda params: FreezeState(jnp.zeros([], jnp.int32)), update)


def make_optimizer(config: OptimizerConfig, num_steps: int, *, freeze_steps: int = 0) -> optax.GradientTransformation:
    """Clip, Adam, decoupled weight decay on every parameter, rate."""
    parts = [clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    parts.append(scale_by_adam(config.b1, config.b2, config.eps))
    if config.weight_decay > 0:
        parts.append(optax.add_decayed_weights(config.weight_decay))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, num_steps)))
    if freeze_steps > 0:
        parts.append(freeze_encoder(freeze_steps))
    return optax.chain(*parts)
