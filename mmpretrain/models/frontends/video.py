"""Pictures: a 3-D convolutional stem, a ResNet over each frame and one linear layer (spec, sections 6.2 and 7.2).

Dims: B clips, T frames, H x W pixels, D width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import InputConfig, ModelConfig
from mmpretrain.models.layers import linear
from mmpretrain.models.resnet import ResNet


class VideoFrontend(nnx.Module):
    """Grey pictures to D numbers a frame."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.resnet = ResNet(config, rngs=rngs)
        self.proj = linear(self.resnet.out_dim, config.width, (None, "embed"), dtype=config.dtype, rngs=rngs)
        self.inputs, self.dtype = config.inputs, config.dtype

    def prepare(self, raw: jax.Array, valid_BT: jax.Array) -> jax.Array:
        """raw: uint8 [B, T, H, W]. Returns float32 of that shape: normalised, and 0 where a frame is not valid."""
        return normalize_pixels(raw, valid_BT, self.inputs)

    def __call__(
        self, x: jax.Array, counted_BT: jax.Array, *, train: bool, visible_BK: jax.Array | None = None
    ) -> jax.Array:
        """x: float32 [B, T, H, W], prepared. Returns [B, T, D].

        visible_BK: int32, each clip's frames that the ResNet is run on, with their true neighbours, and T for none; the
        others are 0, and batch statistics are not of them. None: all.
        """
        y = self.proj(self.resnet(x.astype(self.dtype), counted_BT, train=train, visible_BK=visible_BK))
        if visible_BK is None:
            return y
        nothing = jnp.zeros((counted_BT.shape[1], y.shape[-1]), y.dtype)
        return jax.vmap(lambda y_KD, at_K: nothing.at[at_K].set(y_KD, mode="drop"))(y, visible_BK)


def normalize_pixels(video_BTHW: jax.Array, valid_BT: jax.Array, inputs: InputConfig) -> jax.Array:
    """uint8 grey to (x/255 - mean)/std in float32; padding is 0 after that (spec, section 6.2)."""
    pixels = (video_BTHW.astype(jnp.float32) / 255 - inputs.pixel_mean) / inputs.pixel_std
    return jnp.where(valid_BT[..., None, None], pixels, 0)
