"""The context network: convolutional relative position and a transformer (spec, section 7.5).

The layers' parameters are stacked on a leading dim and scanned, so compile time does not grow with depth, but on a GPU,
where they follow one another.
Dims: B clips, T frames, D width, H heads, K = D/H, L layers.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.models.convolution import convolve_time
from mmpretrain.models.layers import LayerNorm, dropout, gelu, linear
from mmpretrain.models.sharing import Shares, Undivided, run_if
from mmpretrain.randomness import named, numbered

KERNEL_INIT = nnx.initializers.normal(0.02)
CUDNN_MAX_HEAD_DIM = 128

REMAT_POLICIES = {
    "layers": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class PositionalConv(nnx.Module):
    """A grouped convolution over time whose weights are normalised per tap: g_k v_k / |v_k|; then GELU."""

    def __init__(self, width: int, kernel_size: int, groups: int, *, rngs: nnx.Rngs):
        v = math.sqrt(4 / (kernel_size * width)) * jax.random.normal(
            rngs.params(), (kernel_size, width // groups, width)
        )
        self.v = nnx.Param(v, axes=(None, None, "embed"))
        self.g = nnx.Param(jnp.sqrt(jnp.square(v).sum((1, 2))), axes=(None,))
        self.bias = nnx.Param(jnp.zeros(width), axes=("embed",))
        self.groups = groups
        self.shares: Shares = Undivided()

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        v = self.v[...]
        kernel = v * (self.g[...] / jnp.sqrt(jnp.square(v).sum((1, 2))))[:, None, None]
        y = convolve_time(x_BTD, kernel.astype(x_BTD.dtype), self.groups, self.shares)
        return gelu(y + self.bias[...].astype(x_BTD.dtype))


def attend(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, valid_BT: jax.Array, platform: str) -> jax.Array:
    """Attention to the valid frames, the first of each clip: [B, T, H, K]. What is said of others must not be used.

    On a GPU and in 16 bits it is cuDNN's fused kernel, which reads lengths in place of a mask and keeps no
    probabilities; elsewhere, and in float32, it is XLA's.
    """
    _, T, _, K = q_BTHK.shape
    # JAX refuses an odd number of frames in training, as it must only where a bias is given.
    fits = q_BTHK.dtype.itemsize == 2 and K <= CUDNN_MAX_HEAD_DIM and K % 8 == 0 and T % 2 == 0
    if platform != "gpu" or not fits:
        return jax.nn.dot_product_attention(q_BTHK, k_BTHK, v_BTHK, mask=valid_BT[:, None, None, :])
    length_B = jnp.maximum(valid_BT.sum(1, dtype=jnp.int32), 1)  # a clip of padding alone looks at one frame of it
    y = jax.nn.dot_product_attention(
        q_BTHK, k_BTHK, v_BTHK, query_seq_lengths=length_B, key_value_seq_lengths=length_B, implementation="cudnn"
    )
    return jnp.where(valid_BT[..., None, None], y, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend_dropping(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, valid_BT: jax.Array, keep_BHTS: jax.Array, rate: float
) -> jax.Array:
    """Attention as `attend`, whose probabilities are dropped but where `keep` holds, a share of 1 - rate: [B, T, H, K].

    For the gradient the probabilities are kept in the dtype of `v`, and `keep`: a third of what JAX would keep by
    itself. In 16 bits the gradient of the logits is rounded to them too, as fused kernels do, before its products.
    """
    return _dropping_forward(q_BTHK, k_BTHK, v_BTHK, valid_BT, keep_BHTS, rate)[0]


def _dropping_forward(q, k, v, valid, keep, rate: float) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    probs = jax.nn.softmax(_logits(q, k, valid), axis=-1).astype(v.dtype)
    return jnp.einsum("BHTS,BSHK->BTHK", _dropped(probs, keep, rate), v), (q, k, v, probs, keep)


def _dropping_backward(rate: float, kept: tuple[jax.Array, ...], dy_BTHK: jax.Array) -> tuple[jax.Array | None, ...]:
    q, k, v, probs, keep = kept
    dv = jnp.einsum("BHTS,BTHK->BSHK", _dropped(probs, keep, rate), dy_BTHK)
    d_probs = jnp.einsum("BTHK,BSHK->BHTS", dy_BTHK, v, preferred_element_type=jnp.float32)
    d_probs, probs = _dropped(d_probs, keep, rate), probs.astype(jnp.float32)
    d_logits = (probs * (d_probs - (probs * d_probs).sum(-1, keepdims=True))).astype(q.dtype)
    scale = q.shape[-1] ** -0.5
    dq, dk = jnp.einsum("BHTS,BSHK->BTHK", d_logits, k), jnp.einsum("BHTS,BTHK->BSHK", d_logits, q)
    return dq * scale, dk * scale, dv, None, None


def _dropped(probs: jax.Array, keep: jax.Array, rate: float) -> jax.Array:
    return jnp.where(keep, probs / (1 - rate), 0)


attend_dropping.defvjp(_dropping_forward, _dropping_backward)


class Attention(nnx.Module):
    """Self-attention over the valid frames, which are the first of each clip."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, H = config.width, config.num_heads
        head = (3, H, D // H)
        self.qkv = nnx.LinearGeneral(
            D, head, dtype=config.dtype, kernel_init=KERNEL_INIT, rngs=rngs,
            kernel_metadata={"axes": ("embed", None, "heads", None)}, bias_metadata={"axes": (None, "heads", None)},
        )  # fmt: skip
        self.out = nnx.LinearGeneral(
            head[1:], D, axis=(-2, -1), dtype=config.dtype, kernel_init=KERNEL_INIT, rngs=rngs,
            kernel_metadata={"axes": ("heads", None, "embed")}, bias_metadata={"axes": ("embed",)},
        )  # fmt: skip
        self.dropout = config.attention_dropout
        self.shares: Shares = Undivided()

    def weights(self, x_BTD: jax.Array, valid_BT: jax.Array) -> jax.Array:
        """float32 [B, H, T, S]: how much of each valid frame goes into each frame, in evaluation; 1 over S."""
        q, k, _ = jnp.moveaxis(self.qkv(x_BTD), 2, 0)
        return jax.nn.softmax(_logits(q, k, valid_BT), axis=-1)

    def __call__(self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        q, k, v = jnp.moveaxis(self.qkv(x_BTD), 2, 0)  # each [B, T, H, K]
        if key is None or self.dropout == 0.0:
            y = attend(q, k, v, valid_BT, self.shares.platform)
        else:  # no fused form that JAX hands on drops other probabilities each time
            B, T, H, _ = q.shape
            keep = jax.random.bernoulli(key, 1 - self.dropout, (B, H, T, T))
            y = attend_dropping(q, k, v, valid_BT, keep, self.dropout)
        return self.out(y)


def _logits(q_BTHK: jax.Array, k_BSHK: jax.Array, valid_BS: jax.Array) -> jax.Array:
    """float32 [B, H, T, S], as small as can be where a frame is not valid."""
    scaled = q_BTHK * q_BTHK.shape[-1] ** -0.5
    logits = jnp.einsum("BTHK,BSHK->BHTS", scaled, k_BSHK, preferred_element_type=jnp.float32)
    return jnp.where(valid_BS[:, None, None, :], logits, jnp.finfo(jnp.float32).min)


class TransformerLayer(nnx.Module):
    """Attention, then an MLP; each is a branch of the stream: x + Branch(LN(x)), or LN(x + Branch(x)) post-norm."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        def mlp(d_in, d_out, axes):
            return linear(d_in, d_out, axes, dtype=config.dtype, kernel_init=KERNEL_INIT, rngs=rngs)

        self.attention_norm = LayerNorm(config.width, rngs=rngs)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = LayerNorm(config.width, rngs=rngs)
        self.mlp_in = mlp(config.width, config.mlp_dim, ("embed", "mlp"))
        self.mlp_out = mlp(config.mlp_dim, config.width, ("mlp", "embed"))
        self.dropout, self.activation_dropout = config.dropout, config.activation_dropout
        self.pre_norm = not config.reference.post_norm

    def __call__(self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        if self.pre_norm:
            x_BTD = x_BTD + self._attend(self.attention_norm(x_BTD), valid_BT, key)
            return x_BTD + self._transform(self.mlp_norm(x_BTD), key)
        x_BTD = self.attention_norm(x_BTD + self._attend(x_BTD, valid_BT, key))
        return self.mlp_norm(x_BTD + self._transform(x_BTD, key))

    def _attend(self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        """Drop(Attention(x))."""
        attended = self.attention(x_BTD, valid_BT, named(key, "attention probabilities"))
        return dropout(attended, self.dropout, named(key, "attention output"))

    def _transform(self, x_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
        """Drop(W2 Drop(GELU(W1 x)))."""
        hidden = gelu(self.mlp_in(x_BTD))
        y = self.mlp_out(dropout(hidden, self.activation_dropout, named(key, "mlp activation")))
        return dropout(y, self.dropout, named(key, "mlp output"))


class Transformer(nnx.Module):
    """Position, L layers, and one norm: the last of all, or, post-norm, before the layers."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> TransformerLayer:
            return TransformerLayer(config, rngs=rngs)

        self.position = PositionalConv(config.width, config.pos_conv_kernel, config.pos_conv_groups, rngs=rngs)
        self.layers = stack(rngs)
        self.norm = LayerNorm(config.width, rngs=rngs)
        self.num_layers, self.pre_norm = config.num_layers, not config.reference.post_norm
        self.dropout, self.layerdrop, self.remat = config.dropout, config.layerdrop, config.remat
        self.shares: Shares = Undivided()
        self.inspected = False  # True: leaves every layer's stream [L, B, T, D] as the intermediate "layers"

    def __call__(
        self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None, *, layer: int | None = None
    ) -> jax.Array:
        """Runs all layers and the final norm (if pre-norm), or stops after `layer` (counted from 1) without the norm.

        key: for dropout and layerdrop; None in evaluation. Returns [B, T, D].
        """
        return self._scan(x_BTD, valid_BT, key, layer=layer, collect=False)[0]

    def all_layers(self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        """The stream after the position and after every layer, without the final norm: [L + 1, B, T, D]."""
        return self.with_layers(x_BTD, valid_BT, key)[1]

    def with_layers(self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """What a call and `all_layers` return, of one pass."""
        y_BTD, (first, rest) = self._scan(x_BTD, valid_BT, key, layer=None, collect=True)
        return y_BTD, jnp.concatenate([first[None], rest])

    def rollout(self, x_BTD: jax.Array, valid_BT: jax.Array) -> jax.Array:
        """float32 [B, T, S]: how much of frame S of the input is in frame T of the output, as far as attention goes.

        The product over layers of (A + I) / 2, A being the mean of the heads and I the stream that passes by (Abnar and
        Zuidema 2020). Position and MLPs are left out. In evaluation; 1 over the valid S.
        """
        layers_LBTD = self.all_layers(x_BTD, valid_BT, None)[:-1]
        graphdef, params = nnx.split(self.layers)

        def through(rolled_BTS: jax.Array, inputs: tuple[jax.Array, nnx.State]) -> tuple[jax.Array, None]:
            x_BTD, layer_params = inputs
            layer = nnx.merge(graphdef, layer_params)
            x_BTD = layer.attention_norm(x_BTD) if self.pre_norm else x_BTD
            mean_BTS = layer.attention.weights(x_BTD, valid_BT).mean(1)
            return (mean_BTS @ rolled_BTS + rolled_BTS) / 2, None

        start = jnp.broadcast_to(jnp.eye(x_BTD.shape[1]), (*x_BTD.shape[:2], x_BTD.shape[1]))
        return jax.lax.scan(through, start, (layers_LBTD, params))[0]

    def _scan(self, x_BTD, valid_BT, key, *, layer, collect):
        x_BTD = jnp.where(valid_BT[..., None], x_BTD, 0)
        x_BTD = x_BTD + self.position(x_BTD)
        x_BTD = dropout(x_BTD if self.pre_norm else self.norm(x_BTD), self.dropout, named(key, "position"))
        graphdef, params = nnx.split(self.layers)
        depth = self.num_layers if layer is None else layer
        params = jax.tree.map(lambda p: p[:depth], params)
        layers_key, layerdrop = named(key, "layers"), self.layerdrop

        def run_layer(x, inputs):
            layer_params, index = inputs
            layer_key = numbered(layers_key, index)

            def through(x):
                return nnx.merge(graphdef, layer_params)(x, valid_BT, layer_key)

            if key is None or layerdrop == 0:
                y = through(x)
            else:
                kept = jax.random.uniform(named(layer_key, "layerdrop")) >= layerdrop
                y = run_if(kept, lambda: through(x), x, self.shares.platform)
            return y, y if collect or self.inspected else None

        if self.remat != "none":
            run_layer = jax.checkpoint(run_layer, policy=REMAT_POLICIES[self.remat])
        first = x_BTD
        # On a GPU layer after layer: a loop there copies and clears all that it keeps for the gradient.
        unroll = depth if self.shares.platform == "gpu" else 1
        x_BTD, rest = jax.lax.scan(run_layer, x_BTD, (params, jnp.arange(depth)), unroll=unroll)
        if self.inspected:
            self.sow(nnx.Intermediate, "layers", rest)
        return self.norm(x_BTD) if layer is None and self.pre_norm else x_BTD, (first, rest)
