"""Tasks that the encoder is not to tell: how much of their gradient is reversed for it (Ganin and Lempitsky 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmpretrain.config import TaskConfig


def ramp_of(tasks: Sequence[TaskConfig], step: jax.Array, num_steps: int, num_clips: int) -> jax.Array | None:
    """float32 [B], alike for all clips: how much of it there is yet, 2 / (1 + exp(-10 step / num_steps)) - 1.

    0 at the first step, close to 1 from the middle on. None: nothing of these tasks is reversed.
    """
    if not any(task.reversal for task in tasks):
        return None
    ramp = 2 / (1 + jnp.exp(-10 * step / num_steps)) - 1
    return jnp.broadcast_to(ramp.astype(jnp.float32), num_clips)


def reversals_of(tasks: Sequence[TaskConfig], ramp_B: jax.Array | None) -> dict[str, jax.Array]:
    """By task that is reversed, [B], by how much; none without a ramp, as in evaluation."""
    return {} if ramp_B is None else {task.name: task.reversal * ramp_B for task in tasks if task.reversal}
