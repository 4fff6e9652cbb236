"""Heads that hear a text beside the encoder's frames. Dims: B clips, T frames, L tokens, D width, E numbers a token.

What a clip does not have has no say, and a clip of which nothing is shown is answered by biases alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.models.heads import ClipHead, mix
from mmpretrain.models.layers import LayerNorm, dropout, linear
from mmpretrain.randomness import named


class Text(NamedTuple):
    """Tokens [B, L, E], of which those marked in `valid_BL` are there; a clip without any has no text.

    frames_B: bool, whether a clip has anything for the encoder, sound or picture.
    """

    tokens_BLE: jax.Array
    valid_BL: jax.Array
    frames_B: jax.Array

    @property
    def there_B(self) -> jax.Array:
        return self.valid_BL.any(1)


def text_of(tokens_BLE: jax.Array, present_B: jax.Array, frames_B: jax.Array) -> Text:
    """Of a batch: a row of zeros is no token, and no row of a clip whose text is not present is one."""
    return Text(tokens_BLE, (tokens_BLE != 0).any(-1) & present_B[:, None], frames_B)


class TextMean(nnx.Module):
    """The mean of the tokens, through a norm and a linear layer, to D numbers; 0 for a clip without a text."""

    def __init__(self, config: ModelConfig, dim: int, *, rngs: nnx.Rngs, starts_at_zero: bool = False):
        self.norm = LayerNorm(dim, rngs=rngs)
        init = nnx.initializers.zeros if starts_at_zero else None
        self.proj = linear(dim, config.width, (None, "embed"), dtype="float32", rngs=rngs, kernel_init=init)

    def __call__(self, text: Text) -> jax.Array:
        weight_BL = text.valid_BL / jnp.maximum(text.valid_BL.sum(1, keepdims=True), 1)
        mean_BE = (text.tokens_BLE * weight_BL[..., None]).sum(1)
        return jnp.where(text.there_B[:, None], self.proj(self.norm(mean_BE)), 0)


class GatedHead(nnx.Module):
    """h = g tanh(U a) + (1 - g) tanh(V t), g = sigmoid(W [a; t]) (Arevalo et al. 2017), then one linear layer.

    a: the pooled frames, t: the text's mean. Where one of the two is not there g is 1 or 0.
    """

    def __init__(self, config: ModelConfig, num_outputs: int, pooling: str, dim: int, *, rngs: nnx.Rngs):
        D = config.width
        self.frames, self.words = ClipHead(config, D, pooling, rngs=rngs), TextMean(config, dim, rngs=rngs)
        self.gate = linear(2 * D, D, (None, None), dtype="float32", rngs=rngs)
        self.out = linear(D, num_outputs, (None, None), dtype="float32", rngs=rngs)
        self.dropout = config.dropout

    def __call__(self, layers_LBTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None, text: Text) -> jax.Array:
        """[B, num_outputs] in float32."""
        a_BD, t_BD = self.frames(layers_LBTD, valid_BT, named(key, "frames")), self.words(text)
        frames_B1, text_B1 = text.frames_B[:, None], text.there_B[:, None]
        gate_BD = jax.nn.sigmoid(self.gate(jnp.concatenate([jnp.where(frames_B1, a_BD, 0), t_BD], axis=-1)))
        gate_BD = jnp.where(text_B1, jnp.where(frames_B1, gate_BD, 0), 1)
        both_BD = jnp.where(frames_B1, gate_BD * jnp.tanh(a_BD), 0) + (1 - gate_BD) * jnp.tanh(t_BD)
        return self.out(dropout(both_BD, self.dropout, named(key, "out")))


class LateHead(nnx.Module):
    """A classifier of the frames and one of the text; the mean of what those say that are there."""

    def __init__(self, config: ModelConfig, num_outputs: int, pooling: str, dim: int, *, rngs: nnx.Rngs):
        self.frames = ClipHead(config, num_outputs, pooling, rngs=rngs)
        self.words = TextMean(config, dim, rngs=rngs)
        self.out = linear(config.width, num_outputs, (None, None), dtype="float32", rngs=rngs)
        self.dropout = config.dropout

    def __call__(self, layers_LBTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None, text: Text) -> jax.Array:
        """[B, num_outputs] in float32."""
        said = self.frames(layers_LBTD, valid_BT, named(key, "frames"))
        read = self.out(dropout(jnp.tanh(self.words(text)), self.dropout, named(key, "words")))
        frames_B1, text_B1 = text.frames_B[:, None], text.there_B[:, None]
        count_B1 = jnp.maximum(frames_B1.astype(jnp.float32) + text_B1, 1)
        return (jnp.where(frames_B1, said, 0) + jnp.where(text_B1, read, 0)) / count_B1


class CrossBlock(nnx.Module):
    """x + Attention(LN(x), y), then an MLP of the same kind; what asks has no say in what is not there to answer."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D = config.width
        self.asking, self.asked, self.mlp_norm = (LayerNorm(D, rngs=rngs) for _ in range(3))
        self.attention = nnx.MultiHeadAttention(
            config.num_heads, D, dtype="float32", decode=False, rngs=rngs, out_kernel_init=nnx.initializers.zeros
        )
        self.mlp_in = linear(D, 2 * D, (None, None), dtype="float32", rngs=rngs)
        self.mlp_out = linear(2 * D, D, (None, None), dtype="float32", rngs=rngs, kernel_init=nnx.initializers.zeros)

    def __call__(self, x_BSD: jax.Array, y_BRD: jax.Array, valid_BR: jax.Array) -> jax.Array:
        mask = jnp.broadcast_to(valid_BR[:, None, None, :], (len(x_BSD), 1, x_BSD.shape[1], y_BRD.shape[1]))
        heard = self.attention(self.asking(x_BSD), self.asked(y_BRD), mask=mask)
        x_BSD = x_BSD + jnp.where(valid_BR.any(1)[:, None, None], heard, 0)
        return x_BSD + self.mlp_out(jax.nn.gelu(self.mlp_in(self.mlp_norm(x_BSD))))


class CrossHead(nnx.Module):
    """Frames ask the text and the text asks the frames, a block each; the means of both, and one linear layer."""

    def __init__(self, config: ModelConfig, num_outputs: int, pooling: str, dim: int, *, rngs: nnx.Rngs):
        del pooling
        self.layer_weights = nnx.Param(jnp.zeros(config.num_layers + 1), axes=(None,))
        self.norm = LayerNorm(dim, rngs=rngs)
        self.words = linear(dim, config.width, (None, None), dtype="float32", rngs=rngs)
        self.of_frames, self.of_text = CrossBlock(config, rngs=rngs), CrossBlock(config, rngs=rngs)
        self.out = linear(2 * config.width, num_outputs, (None, None), dtype="float32", rngs=rngs)
        self.dropout = config.dropout

    def __call__(self, layers_LBTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None, text: Text) -> jax.Array:
        """[B, num_outputs] in float32."""
        frames_BTD, words_BLD = mix(layers_LBTD, self.layer_weights[...]), self.words(self.norm(text.tokens_BLE))
        valid_BT = valid_BT & text.frames_B[:, None]
        asked = self.of_frames(frames_BTD, words_BLD, text.valid_BL), self.of_text(words_BLD, frames_BTD, valid_BT)
        means = [_mean(x, valid) for x, valid in zip(asked, (valid_BT, text.valid_BL), strict=True)]
        return self.out(dropout(jnp.concatenate(means, axis=-1), self.dropout, key))


def _mean(x_BSD: jax.Array, valid_BS: jax.Array) -> jax.Array:
    weight_BS = valid_BS / jnp.maximum(valid_BS.sum(1, keepdims=True), 1)
    return (jnp.where(valid_BS[..., None], x_BSD, 0) * weight_BS[..., None]).sum(1)


TEXT_HEADS = {"gated": GatedHead, "late": LateHead, "intermediate": CrossHead}
