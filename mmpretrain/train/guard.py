"""What becomes of a step whose loss is no number or explodes: it changes nothing, and is passed over or stops the run.

The verdict falls on the device, within the step, so that no step waits for the host; the loop looks now and then.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.config import HealthConfig

GOOD, PASSED_OVER, HALTED = range(3)
MEAN_OVER = 100  # steps
CLIPS_TO_NAME = 6
LOWEST_MEAN = 1.0  # nats: of a loss near 0, many times as much is still little


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Guard:
    """What the verdict on a step depends on besides the step; part of the train state.

    usual_loss: float32, the mean over the good steps, older ones fading. passed_over, in_a_row: int32, how many bad
    steps there were, and how many just now. halted: bool, a bad step has stopped the run: no step changes anything.
    """

    usual_loss: jax.Array
    passed_over: jax.Array
    in_a_row: jax.Array
    halted: jax.Array

    @classmethod
    def fresh(cls) -> Guard:
        zero = jnp.zeros([], jnp.int32)
        return cls(jnp.zeros([], jnp.float32), zero, zero, jnp.zeros([], bool))


def judge(
    guard: Guard, config: HealthConfig, *, step: jax.Array, loss: jax.Array, grad_norm: jax.Array
) -> tuple[Guard, jax.Array]:
    """The verdict on a step: GOOD, PASSED_OVER or HALTED, int32. step: int32, how many there were before it.

    A step is bad if its loss or the norm of its gradient is not finite, or if its loss is above `max_loss_rise` times
    the mean of the good steps before it.
    """
    number = step - guard.passed_over + 1  # of this step among the good ones, if it is one
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
    if config.max_loss_rise > 0:
        limit = config.max_loss_rise * jnp.maximum(guard.usual_loss, LOWEST_MEAN)
        bad |= (loss > limit) & (number > 1)
    halted = guard.halted | (bad & (guard.in_a_row >= config.skip_bad_steps))
    verdict = jnp.where(halted, HALTED, jnp.where(bad, PASSED_OVER, GOOD)).astype(jnp.int32)
    share = jnp.maximum(1 / number.astype(jnp.float32), 1 / MEAN_OVER)
    moved = guard.usual_loss + share * (loss - guard.usual_loss)
    passed_over = (verdict == PASSED_OVER).astype(jnp.int32)
    return Guard(
        usual_loss=jnp.where(verdict == GOOD, moved, guard.usual_loss),
        passed_over=guard.passed_over + passed_over,
        in_a_row=jnp.where(verdict == GOOD, 0, guard.in_a_row + passed_over),
        halted=halted,
    ), verdict


class BadStep(NamedTuple):
    step: int
    loss: float
    grad_norm: float

    def __str__(self) -> str:
        return f"step {self.step} (loss {self.loss:.4g}, gradient norm {self.grad_norm:.4g})"

    def message(self, title: str, usual_loss: float, clip_ids: list[str], replay: str) -> str:
        """Of the end of a run. usual_loss: the mean before. replay: the command that looks into the step."""
        more = f" and {len(clip_ids) - CLIPS_TO_NAME} more" if len(clip_ids) > CLIPS_TO_NAME else ""
        return (
            f"{title}: stopped before {self}; before it the mean loss was {usual_loss:.4g}; clips "
            f"{', '.join(clip_ids[:CLIPS_TO_NAME])}{more}; look into it with `{replay}`; the state before it is saved: "
            f"go on with a lower optimizer.peak_lr or with optimizer.clip_norm (and --accept_changes), or pass over "
            f"such steps with --config.health.skip_bad_steps=10"
        )


class Verdicts:
    """The verdicts on the steps since the last look, left on the device until then."""

    def __init__(self):
        self._unseen: dict[int, tuple[jax.Array, ...]] = {}

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """metrics: what the step returned; keeps three numbers of them."""
        self._unseen[step] = tuple(metrics[name] for name in ("verdict", "loss", "grad_norm"))

    def look(self) -> tuple[list[BadStep], BadStep | None]:
        """The steps that were passed over, and the one that stopped the run. Waits for the device."""
        seen, self._unseen = jax.device_get(self._unseen), {}
        bad = {verdict: [BadStep(step, float(loss), float(norm)) for step, (v, loss, norm) in seen.items()
                         if v == verdict] for verdict in (PASSED_OVER, HALTED)}  # fmt: skip
        return bad[PASSED_OVER], next(iter(bad[HALTED]), None)


def released(guard: Guard) -> Guard:
    """The guard before the step that stopped the run, so that a run that goes on tries that step again."""
    return dataclasses.replace(guard, halted=jax.device_put(np.zeros([], bool), guard.halted.sharding))
