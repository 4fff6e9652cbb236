"""What a network must know of the devices: what they are, and how a batch's pictures and clips are shared out.

Models know no mesh: whoever runs one on several devices tells its modules by `share_out`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx


class Shares(Protocol):
    """How pictures and clips are shared out."""

    @property
    def parts(self) -> int:
        """The devices, each of which has an equal run of the N pictures."""

    @property
    def per_clip(self) -> int:
        """The devices that share the pictures of the same clips; T must be a multiple of it for that."""

    @property
    def platform(self) -> str:
        """What the devices are: "cpu", "gpu" or "tpu". Some operations have a form for one of them."""

    def share_out(self, x_N: jax.Array) -> jax.Array:
        """Pictures [N, ...], clip after clip, each to its device."""

    def bring_back(self, x_N: jax.Array) -> jax.Array:
        """And what came of them to the devices that have their clips."""


@dataclasses.dataclass(frozen=True)
class Undivided:
    """One device has all; it makes its sums in parts if told so."""

    parts: int = 1
    per_clip: int = 1
    platform: str = dataclasses.field(default_factory=jax.default_backend)

    def share_out(self, x_N: jax.Array) -> jax.Array:
        return x_N

    bring_back = share_out


def share_out(model: nnx.Module, shares: Shares) -> None:
    """Tells every module within `model` that has `shares` of its own: what they are now."""
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "shares"):
            module.shares = shares


def run_if(condition: jax.Array, run: Callable[[], Any], otherwise: Any, platform: str) -> Any:
    """`run()`, arrays in any tree, if the scalar `condition` holds, else `otherwise`, of the same shapes.

    A branch, of which what is not run costs nothing. On a GPU a choice between both, made while results are written:
    there a branch's results are copied, and all that the gradient needs of it, 9 of 68 ms of a step of Base on an H100.
    """
    if platform != "gpu":
        return jax.lax.cond(condition, run, lambda: otherwise)
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), run(), otherwise)
