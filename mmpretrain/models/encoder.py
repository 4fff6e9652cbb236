"""The audio-visual encoder: two front-ends, fusion, context (spec, sections 7.1 to 7.5).

`embed` and `contextualize` are separate so that an objective can hide inputs before the first, or fused frames between
the two. Dims: B clips, T frames, F = 104 audio features, H x W pixels, D width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import AUDIO_DIM, ModelConfig
from mmpretrain.models.layers import LayerNorm, dropout, fold, linear, scale_gradient
from mmpretrain.models.resnet import VideoFrontend
from mmpretrain.models.transformer import Transformer
from mmpretrain.records import Batch


class AVEncoder(nnx.Module):
    """25 frames a second of sound and picture, either of which may be missing, to D numbers a frame."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, dtype = config.width, config.dtype
        self.config = config
        if "audio" in config.modalities:
            self.audio_proj = linear(AUDIO_DIM, D, (None, "embed"), dtype=dtype, rngs=rngs)
        if "video" in config.modalities:
            self.video = VideoFrontend(config.resnet_width, rngs=rngs)
            self.video_proj = linear(self.video.out_dim, D, (None, "embed"), dtype=dtype, rngs=rngs)
        fused = len(config.modalities) * D if config.fusion == "concat" else D
        self.fusion_norm = LayerNorm(fused, rngs=rngs)
        if config.fusion == "concat":
            self.fusion_proj = linear(fused, D, (None, "embed"), dtype=dtype, rngs=rngs)
        self.transformer = Transformer(config, rngs=rngs)

    def embed(
        self,
        audio_BTF: jax.Array | None,
        pixels_BTHW: jax.Array | None,
        valid_BT: jax.Array,
        use_audio_B: jax.Array,
        use_video_B: jax.Array,
        key: jax.Array | None = None,
        *,
        train: bool = False,
        counted_BT: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Both streams through their front-ends and fused: x [B, T, D], and the fused tensor before its norm.

        pixels_BTHW: normalised (`normalize_pixels`). use_*_B: bool; a stream that is not used is zero after its
        projection. counted_BT: frames that batch statistics are taken over, default the valid ones of clips with video.
        """
        config, streams = self.config, []
        if "audio" in config.modalities:
            x = self.audio_proj(audio_BTF.astype(config.dtype))
            streams.append(self._gate(x, use_audio_B))
        if "video" in config.modalities:
            counted_BT = valid_BT & use_video_B[:, None] if counted_BT is None else counted_BT
            x = self.video(pixels_BTHW.astype(config.dtype), counted_BT, train=train)
            streams.append(self._gate(self.video_proj(x), use_video_B))
        fused = jnp.concatenate(streams, axis=-1) if config.fusion == "concat" else sum(streams)
        x_BTD = self.fusion_norm(fused)
        if config.fusion == "concat":
            x_BTD = self.fusion_proj(x_BTD)
        return dropout(x_BTD, config.input_dropout, fold(key, 0)), fused

    def _gate(self, x_BTD: jax.Array, use_B: jax.Array) -> jax.Array:
        return jnp.where(use_B[:, None, None], scale_gradient(x_BTD, self.config.feature_grad_scale), 0)

    def contextualize(
        self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None = None, *, layer: int | None = None
    ) -> jax.Array:
        """The transformer's output [B, T, D] after the final norm, or after `layer` (from 1) without it."""
        return self.transformer(x_BTD, valid_BT, fold(key, 1), layer=layer)

    def all_layers(self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Every hidden state, 0 being the transformer's input: [L + 1, B, T, D], without the final norm."""
        return self.transformer.all_layers(x_BTD, valid_BT, fold(key, 1))

    def __call__(self, batch: Batch, *, layer: int | None = None) -> jax.Array:
        """Features of whole, unmasked clips in evaluation: [B, T, D].

        layer: None for the final output; k for the stream after layer k; 0 for the fused input of the transformer.
        """
        pixels = normalize_pixels(batch.video_BTHW, batch.valid_BT, self.config)
        x, _ = self.embed(batch.audio_BTF, pixels, batch.valid_BT, batch.has_audio_B, batch.has_video_B)
        return x if layer == 0 else self.contextualize(x, batch.valid_BT, layer=layer)


def normalize_pixels(video_BTHW: jax.Array | None, valid_BT: jax.Array, config: ModelConfig) -> jax.Array | None:
    """uint8 grey to (x/255 - mean)/std in float32; padding is 0 after that (spec, section 6.2)."""
    if video_BTHW is None:
        return None
    pixels = (video_BTHW.astype(jnp.float32) / 255 - config.inputs.pixel_mean) / config.inputs.pixel_std
    return jnp.where(valid_BT[..., None, None], pixels, 0)
