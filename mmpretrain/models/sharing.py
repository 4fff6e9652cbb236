"""How the pictures and clips of a batch are shared out over devices, as far as a network must know.

Models know no mesh: whoever runs one on several devices tells its modules by `share_out`.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
from flax import nnx


class Shares(Protocol):
    """How pictures and clips are shared out."""

    @property
    def parts(self) -> int:
        """The devices, each of which has an equal run of the N pictures."""

    @property
    def per_clip(self) -> int:
        """The devices that share the pictures of the same clips; T must be a multiple of it for that."""

    def share_out(self, x_N: jax.Array) -> jax.Array:
        """Pictures [N, ...], clip after clip, each to its device."""

    def bring_back(self, x_N: jax.Array) -> jax.Array:
        """And what came of them to the devices that have their clips."""


@dataclasses.dataclass(frozen=True)
class Undivided:
    """One device has all; it makes its sums in parts if told so."""

    parts: int = 1
    per_clip: int = 1

    def share_out(self, x_N: jax.Array) -> jax.Array:
        return x_N

    bring_back = share_out


def share_out(model: nnx.Module, shares: Shares) -> None:
    """Tells every module within `model` that has `shares` of its own: what they are now."""
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "shares"):
            module.shares = shares
