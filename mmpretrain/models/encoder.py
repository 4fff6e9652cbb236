"""The encoder: a front-end for each modality, fusion, context (spec, sections 7.1 to 7.5).

`prepare`, `embed` and `contextualize` are separate so that an objective can hide inputs between the first two, or fused
frames between the last two. Dims: B clips, T frames, D width, C fused width, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.models.frontends import FRONTENDS
from mmpretrain.models.fusion import Fusion
from mmpretrain.models.layers import dropout
from mmpretrain.models.transformer import Transformer
from mmpretrain.randomness import named
from mmpretrain.records import Batch


class AVEncoder(nnx.Module):
    """25 frames a second of several modalities, any of which a clip may lack, to D numbers a frame.

    Raises ValueError for a modality that has no front-end.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        if unknown := [name for name in config.modalities if name not in FRONTENDS]:
            raise ValueError(f"model.modalities={config.modalities}: {unknown[0]!r} is none of {', '.join(FRONTENDS)}")
        self.config = config
        self.frontends = nnx.Dict({name: FRONTENDS[name](config, rngs=rngs) for name in config.modalities})
        self.fusion = Fusion(config, rngs=rngs)
        self.transformer = Transformer(config, rngs=rngs)

    def prepare(self, inputs: Mapping[str, jax.Array], valid_BT: jax.Array) -> dict[str, jax.Array]:
        """The inputs of a batch as the front-ends take them, 0 where a frame is not valid."""
        return {name: self.frontends[name].prepare(inputs[name], valid_BT) for name in self.config.modalities}

    def embed(
        self,
        prepared: Mapping[str, jax.Array],
        valid_BT: jax.Array,
        use: Mapping[str, jax.Array],
        key: jax.Array | None = None,
        *,
        train: bool = False,
        counted: Mapping[str, jax.Array] | None = None,
        visible: Mapping[str, jax.Array] | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Every modality through its front-end, fused: x [B, T, D], and the fused streams [B, T, C] before their norm.

        prepared: what `prepare` returns, with whatever was hidden in it. use: bool [B] a modality; a stream that is not
        used is 0 after its front-end, and learns nothing. counted: bool [B, T] a modality, the frames that batch
        statistics are of; None: the valid frames of the clips whose modality is used. The front-ends see 0 elsewhere.
        visible: int32 [B, K] for a modality whose front-end can leave frames out, those that it is not to (T: none).
        """
        streams = self.streams(prepared, valid_BT, use, train=train, counted=counted, visible=visible)
        return self.fuse(streams, use, key)

    def streams(
        self,
        prepared: Mapping[str, jax.Array],
        valid_BT: jax.Array,
        use: Mapping[str, jax.Array],
        *,
        train: bool = False,
        counted: Mapping[str, jax.Array] | None = None,
        visible: Mapping[str, jax.Array] | None = None,
    ) -> dict[str, jax.Array]:
        """The first half of `embed`: [B, T, D] of each modality from its front-end."""
        streams = {}
        for name in self.config.modalities:
            counted_BT = valid_BT & use[name][:, None] if counted is None else counted[name]
            x = prepared[name]
            x = jnp.where(counted_BT.reshape(*counted_BT.shape, *[1] * (x.ndim - 2)), x, 0)
            some = {"visible_BK": visible[name]} if visible and name in visible else {}
            streams[name] = self.frontends[name](x, counted_BT, train=train, **some)
        return streams

    def fuse(
        self, streams: Mapping[str, jax.Array], use: Mapping[str, jax.Array], key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The second half of `embed`, of the streams that are used."""
        x_BTD, fused_BTC = self.fusion(streams, use)
        return dropout(x_BTD, self.config.input_dropout, named(key, "input")), fused_BTC

    def fuse_apart(
        self, streams: Mapping[str, jax.Array], use: Mapping[str, jax.Array], key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Of each modality by itself what `fuse` makes of it, x [B, T, D]."""
        return {
            name: self.fuse(
                streams,
                {other: use_B if other == name else jnp.zeros_like(use_B) for other, use_B in use.items()},
                named(key, name),
            )[0]
            for name in streams
        }

    def contextualize(
        self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None = None, *, layer: int | None = None
    ) -> jax.Array:
        """The transformer's output [B, T, D] after the final norm, or after `layer` (from 1) without it."""
        return self.transformer(x_BTD, valid_BT, named(key, "transformer"), layer=layer)

    def all_layers(self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Every hidden state, 0 being the transformer's input: [L + 1, B, T, D], without the final norm."""
        return self.transformer.all_layers(x_BTD, valid_BT, named(key, "transformer"))

    def with_layers(
        self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """What `contextualize` and `all_layers` return, of one pass."""
        return self.transformer.with_layers(x_BTD, valid_BT, named(key, "transformer"))

    def embed_batch(self, batch: Batch) -> jax.Array:
        """x [B, T, D] of whole, unmasked clips in evaluation: what `contextualize` and `all_layers` take."""
        prepared = self.prepare(batch.inputs, batch.valid_BT)
        return self.embed(prepared, batch.valid_BT, batch.present)[0]

    def __call__(self, batch: Batch, *, layer: int | None = None) -> jax.Array:
        """Features of whole, unmasked clips in evaluation: [B, T, D].

        layer: None for the final output; k for the stream after layer k; 0 for the fused input of the transformer.
        """
        x_BTD = self.embed_batch(batch)
        return x_BTD if layer == 0 else self.contextualize(x_BTD, batch.valid_BT, layer=layer)
