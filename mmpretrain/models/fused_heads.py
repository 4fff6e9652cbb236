"""Heads in which streams meet: sound and picture, or what the encoder makes of both and a text, say, beside it.

Dims: B clips, T frames, L rows, D width. M streams: with something beside, the encoder's frames and then that; else its
modalities, each of which went through it alone. What a clip does not have has no say, and a clip of which nothing is
shown is answered by biases alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.models.heads import ClipHead, Said, mix
from mmpretrain.models.layers import LayerNorm, dropout, linear
from mmpretrain.models.streams import Beside, Heard, mean_of, rows_of
from mmpretrain.randomness import named

NUM_TOKENS, NUM_BLOCKS = 4, 2  # of `BottleneckHead`; more tokens brought nothing in Nagrani et al. 2021, section 4.3
FRAMES = "frames"  # the encoder's stream of all its modalities
Layers = jax.Array | Mapping[str, jax.Array]  # [L + 1, B, T, D], of all modalities or, by name, of each alone


def of_encoder(config: ModelConfig, beside: Sequence[Beside]) -> tuple[str, ...]:
    """The streams that come from the encoder."""
    return (FRAMES,) if beside else config.modalities


def _by_stream(layers: Layers, heard: Heard) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Of each of these the layers, and whether a clip has it, bool [B]."""
    if isinstance(layers, Mapping):
        return {name: (x_LBTD, heard.present[name]) for name, x_LBTD in layers.items()}
    return {FRAMES: (layers, heard.frames_B)}


class GatedHead(nnx.Module):
    """h = sum of g_m tanh(U_m x_m), the gates g a softmax over the streams of W [x_1; ...; x_M], for each of D numbers.

    x: of the encoder's streams what is pooled, of the others the mean of their rows. Of two streams it is the unit of
    Arevalo et al. 2017. A stream that is not there has gate 0.
    """

    def __init__(
        self, config: ModelConfig, num_outputs: int, pooling: str, beside: Sequence[Beside], *, rngs: nnx.Rngs
    ):
        D, inside = config.width, of_encoder(config, beside)
        M = len(inside) + len(beside)
        self.pools = nnx.Dict({name: ClipHead(config, D, pooling, rngs=rngs) for name in inside})
        self.rows = rows_of(config, beside, rngs=rngs)
        self.gate = linear(M * D, M * D, (None, None), dtype="float32", rngs=rngs)
        self.out = linear(D, num_outputs, (None, None), dtype="float32", rngs=rngs)
        self.dropout = config.dropout

    def __call__(self, layers: Layers, valid_BT: jax.Array, key: jax.Array | None, heard: Heard) -> Said:
        """float32 [B, num_outputs]; aside `gate` [B, M], the mean of each stream's gates."""
        inside = _by_stream(layers, heard)
        xs = [self.pools[name](x_LBTD, valid_BT, named(key, name)) for name, (x_LBTD, _) in inside.items()]
        xs += [mean_of(self.rows[name](stream), stream.valid_BL) for name, stream in heard.beside.items()]
        there = [there_B for _, there_B in inside.values()] + [stream.there_B for stream in heard.beside.values()]
        there_BM = jnp.stack(there, axis=1)
        x_BMD = jnp.where(there_BM[..., None], jnp.stack(xs, axis=1), 0)
        asked_BMD = self.gate(x_BMD.reshape(x_BMD.shape[0], -1)).reshape(x_BMD.shape)
        gate_BMD = jax.nn.softmax(jnp.where(there_BM[..., None], asked_BMD, jnp.finfo(jnp.float32).min), axis=1)
        gate_BMD = jnp.where(there_BM[..., None], gate_BMD, 0)
        both_BD = (gate_BMD * jnp.tanh(x_BMD)).sum(1)
        return self.out(dropout(both_BD, self.dropout, named(key, "out"))), {"gate": gate_BMD.mean(-1)}


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
        mask = jnp.broadcast_to(valid_BR[:, None, None, :], (x_BSD.shape[0], 1, x_BSD.shape[1], y_BRD.shape[1]))
        heard = self.attention(self.asking(x_BSD), self.asked(y_BRD), mask=mask)
        x_BSD = x_BSD + jnp.where(valid_BR.any(1)[:, None, None], heard, 0)
        return x_BSD + self.mlp_out(jax.nn.gelu(self.mlp_in(self.mlp_norm(x_BSD))))


class _RowHead(nnx.Module):
    """Of heads that hear every row: those of the encoder's streams are a learned mix of its layers."""

    def __init__(self, config: ModelConfig, beside: Sequence[Beside], *, rngs: nnx.Rngs):
        inside = of_encoder(config, beside)
        self.layer_weights = nnx.Dict({
            name: nnx.Param(jnp.zeros(config.num_layers + 1), axes=(None,)) for name in inside
        })  # fmt: skip
        self.rows, self.dropout = rows_of(config, beside, rngs=rngs), config.dropout
        self.names = (*inside, *(name for name, *_ in beside))

    def streams(self, layers: Layers, valid_BT: jax.Array, heard: Heard) -> dict[str, tuple[jax.Array, jax.Array]]:
        """By name the rows [B, S, D] and which of them are there, bool [B, S]."""
        inside = {
            name: (mix(x_LBTD, self.layer_weights[name][...]), valid_BT & there_B[:, None])
            for name, (x_LBTD, there_B) in _by_stream(layers, heard).items()
        }
        return inside | {name: (self.rows[name](stream), stream.valid_BL) for name, stream in heard.beside.items()}


class CrossHead(_RowHead):
    """Each stream asks the rows of all others, by a block of its own; the means of all, and one linear layer."""

    def __init__(
        self, config: ModelConfig, num_outputs: int, pooling: str, beside: Sequence[Beside], *, rngs: nnx.Rngs
    ):
        del pooling
        super().__init__(config, beside, rngs=rngs)
        self.blocks = nnx.Dict({name: CrossBlock(config, rngs=rngs) for name in self.names})
        self.out = linear(len(self.names) * config.width, num_outputs, (None, None), dtype="float32", rngs=rngs)

    def __call__(self, layers: Layers, valid_BT: jax.Array, key: jax.Array | None, heard: Heard) -> jax.Array:
        """[B, num_outputs] in float32."""
        streams, means = self.streams(layers, valid_BT, heard), []
        for name, (x_BSD, valid_BS) in streams.items():
            others = [stream for other, stream in streams.items() if other != name]
            asked_BRD, there_BR = (jnp.concatenate(parts, axis=1) for parts in zip(*others, strict=True))
            means.append(mean_of(self.blocks[name](x_BSD, asked_BRD, there_BR), valid_BS))
        return self.out(dropout(jnp.concatenate(means, axis=-1), self.dropout, key))


class BottleneckHead(_RowHead):
    """Streams meet in a few tokens alone (Nagrani et al. 2021): what the tokens come to, through one linear layer.

    In every block each stream attends to itself and the tokens, and the tokens to it and themselves, by weights of its
    own; the tokens are then the mean of what they became by the streams that are there.
    """

    def __init__(
        self, config: ModelConfig, num_outputs: int, pooling: str, beside: Sequence[Beside], *, rngs: nnx.Rngs
    ):
        del pooling
        super().__init__(config, beside, rngs=rngs)
        tokens = 0.02 * jax.random.normal(rngs.params(), (NUM_TOKENS, config.width))
        self.tokens = nnx.Param(tokens, axes=(None, None))
        each = [f"{name}_{block}" for block in range(NUM_BLOCKS) for name in self.names]
        self.blocks = nnx.Dict({name: CrossBlock(config, rngs=rngs) for name in each})
        self.norm = LayerNorm(config.width, rngs=rngs)
        self.out = linear(config.width, num_outputs, (None, None), dtype="float32", rngs=rngs)

    def __call__(self, layers: Layers, valid_BT: jax.Array, key: jax.Array | None, heard: Heard) -> jax.Array:
        """[B, num_outputs] in float32."""
        streams = self.streams(layers, valid_BT, heard)
        rows = {name: x for name, (x, _) in streams.items()}
        there_MB = jnp.stack([valid.any(1) for _, valid in streams.values()])
        share_MB = there_MB / jnp.maximum(there_MB.sum(0), 1)
        tokens_BKD = jnp.broadcast_to(self.tokens[...], (valid_BT.shape[0], *self.tokens.shape))
        always_BK = jnp.ones(tokens_BKD.shape[:2], bool)
        for block in range(NUM_BLOCKS):
            became = []
            for name, (_, valid_BS) in streams.items():
                whole = jnp.concatenate([tokens_BKD, rows[name]], axis=1)
                whole = self.blocks[f"{name}_{block}"](whole, whole, jnp.concatenate([always_BK, valid_BS], axis=1))
                became.append(whole[:, :NUM_TOKENS] - tokens_BKD)
                rows[name] = whole[:, NUM_TOKENS:]
            tokens_BKD = tokens_BKD + jnp.einsum("MBKD,MB->BKD", jnp.stack(became), share_MB)
        return self.out(dropout(self.norm(tokens_BKD).mean(1), self.dropout, key))


FUSED_HEADS = {"gated": GatedHead, "intermediate": CrossHead, "bottleneck": BottleneckHead}
