"""Sound: one linear layer over a row of log filterbanks (spec, section 7.1).

Dims: B clips, T frames, F = 104, D width.
"""

from __future__ import annotations

import jax
from flax import nnx

from mmpretrain.config import AUDIO_DIM, ModelConfig
from mmpretrain.models.layers import linear


class AudioFrontend(nnx.Module):
    """Rows of filterbanks to D numbers a frame."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.proj = linear(AUDIO_DIM, config.width, (None, "embed"), dtype=config.dtype, rngs=rngs)
        self.dtype = config.dtype

    def prepare(self, raw: jax.Array, valid_BT: jax.Array) -> jax.Array:
        """As it is: rows are normalised, and 0 in padding, when they are made."""
        del valid_BT
        return raw

    def __call__(self, x: jax.Array, counted_BT: jax.Array, *, train: bool) -> jax.Array:
        """x: float32 [B, T, F]. Returns [B, T, D]; there are no batch statistics."""
        del counted_BT, train
        return self.proj(x.astype(self.dtype))
