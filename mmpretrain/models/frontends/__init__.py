"""Front-ends, one a modality: from what `data.inputs` makes of a clip to D numbers a frame.

A new modality is a module here with its class in `FRONTENDS`, and an input under the same name in `data.inputs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax

from mmpretrain.models.frontends.audio import AudioFrontend
from mmpretrain.models.frontends.video import VideoFrontend


class Frontend(Protocol):
    """A Flax module, made as `Frontend(config, rngs=rngs)`."""

    def prepare(self, raw: jax.Array, valid_BT: jax.Array) -> jax.Array:
        """The input of a batch as the network takes it; objectives hide stretches of what this returns.

        raw: [B, T, ...] as in a batch. Frames that are not valid become 0.
        """

    def __call__(self, x: jax.Array, counted_BT: jax.Array, *, train: bool) -> jax.Array:
        """[B, T, D] of prepared input. counted_BT: bool, the frames that batch statistics are taken over."""


FRONTENDS: dict[str, Callable[..., Frontend]] = {"audio": AudioFrontend, "video": VideoFrontend}
