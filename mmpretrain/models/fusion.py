"""Streams of several modalities to one (spec, section 7.3). Dims: B clips, T frames, D width, C fused width."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.models.layers import LayerNorm, linear, scale_gradient


class Fusion(nnx.Module):
    """Concatenates or adds the streams, whichever of them a clip has, and normalises; one linear layer back to D."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.concatenates = config.fusion == "concat"
        width = len(config.modalities) * config.width if self.concatenates else config.width
        self.norm = LayerNorm(width, rngs=rngs)
        if self.concatenates:
            self.proj = linear(width, config.width, (None, "embed"), dtype=config.dtype, rngs=rngs)
        self.grad_scale = config.feature_grad_scale

    def __call__(self, streams: Mapping[str, jax.Array], use: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """x [B, T, D], and the fused streams [B, T, C] before their norm.

        streams: [B, T, D] of each modality, in the order of the model's. use: bool [B], whether a clip's stream is
        used; one that is not is 0.
        """
        gated = [
            jnp.where(use[name][:, None, None], scale_gradient(x_BTD, self.grad_scale), 0)
            for name, x_BTD in streams.items()
        ]
        fused_BTC = jnp.concatenate(gated, axis=-1) if self.concatenates else sum(gated)
        x = self.norm(fused_BTC)
        return (self.proj(x) if self.concatenates else x), fused_BTC
