"""The layers that Flax does not have as the reference has them, and the initial values of those that it does.

Every parameter carries `axes`, the logical name of each of its dims; `parallel/mesh.py` alone says where they live.
Dims: B clips, T frames, D width, C channels, N any leading dims.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from mmpretrain.models.sharing import Shares, Undivided
from mmpretrain.models.statistics import Moments, inverse_deviation, moments, normalize, normalize_and_pool

LAYER_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.9
Known = tuple[jax.Array, jax.Array, jax.Array]  # the mean, inverse deviation and count that a batch norm normalises by


def torch_uniform(fan_in: int) -> Initializer:
    """Uniform on +-1/sqrt(fan_in): what the reference's plain Linear and Conv3d layers start from."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def linear(
    d_in: int,
    d_out: int,
    axes: tuple[str | None, str | None],
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
    kernel_init: Initializer | None = None,
) -> nnx.Linear:
    """A Linear layer with the reference's default start, or with `kernel_init` and a zero bias where that is given."""
    return nnx.Linear(
        d_in, d_out, dtype=dtype, rngs=rngs,
        kernel_init=kernel_init or torch_uniform(d_in),
        bias_init=nnx.initializers.zeros if kernel_init else torch_uniform(d_in),
        kernel_metadata={"axes": axes}, bias_metadata={"axes": axes[1:]},
    )  # fmt: skip


class LayerNorm(nnx.LayerNorm):
    """Over the last dim, statistics in float32 with the two-pass variance, result in the input's dtype."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        super().__init__(
            width, epsilon=LAYER_NORM_EPS, use_fast_variance=False, rngs=rngs,
            scale_metadata={"axes": ("embed",)}, bias_metadata={"axes": ("embed",)},
        )  # fmt: skip

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x.astype(jnp.float32)).astype(x.dtype)


class BatchNorm(nnx.Module):
    """Over all dims but the last, counting only the entries that `weight` marks.

    Normalises with the biased variance and keeps running averages of the unbiased one (spec, section 1). The statistics
    are of the global batch, since under `jit` the arrays are, or of each of `parts` runs of pictures for itself, where
    these are not `merged`; the running averages then are of the mean of all. Padding and clips without a picture do not
    count. Fewer than two values have no variance: the running averages stand in for them then, and do not move.
    """

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels), axes=("channels",))
        self.bias = nnx.Param(jnp.zeros(channels), axes=("channels",))
        self.mean = nnx.BatchStat(jnp.zeros(channels), axes=("channels",))
        self.var = nnx.BatchStat(jnp.ones(channels), axes=("channels",))
        self.still = False  # True: in training too the running averages are used, and do not move
        self.merged = True  # False: each part is normalised by its own statistics
        self.shares: Shares = Undivided()  # each device makes its own sums before they are merged

    def __call__(
        self,
        x_NHWC: jax.Array,
        weight_N: jax.Array,
        *,
        train: bool,
        act: PReLU | None = None,
        beside_NHWC: jax.Array | None = None,
        pool: bool = False,
    ) -> jax.Array:
        """weight_N: 1 for the pictures that count, 0 for others. Updates the running averages where `train`.

        act: what comes after, in the same passes over the memory: act(y + beside), 0 for pictures that do not count
        (see `normalize`). pool: and the max-pool of act(y) after it.
        """
        counted_N, mean, var, scale, bias = weight_N > 0, self.mean[...], self.var[...], self.scale[...], self.bias[...]

        def normalized(
            x_NHWC: jax.Array, beside_NHWC: jax.Array | None, counted_N: jax.Array, known: Known, parts: int
        ) -> jax.Array:
            if pool:
                of_channels = (scale, bias, *known, act.slope[...])
                return normalize_and_pool(x_NHWC, counted_N, *of_channels, parts, self.shares.platform)
            slope = None if act is None else act.slope[...]
            return normalize(x_NHWC, beside_NHWC, counted_N, scale, bias, *known, slope, parts)

        if not train or self.still:
            known = mean, inverse_deviation(var), jnp.zeros([])
            return normalized(x_NHWC, beside_NHWC, counted_N, known, self.shares.parts)
        if self.merged:
            batch = _named(moments(jax.lax.stop_gradient(x_NHWC), counted_N, mean, parts=self.shares.parts))
            self._move(batch.mean_C, _unbiased(batch), batch.count >= 2)
            return normalized(x_NHWC, beside_NHWC, counted_N, _known(batch, mean, var), self.shares.parts)

        def of_part(
            x_NHWC: jax.Array, beside_NHWC: jax.Array | None, counted_N: jax.Array
        ) -> tuple[jax.Array, Moments]:
            batch = _named(moments(jax.lax.stop_gradient(x_NHWC), counted_N, mean))
            return normalized(x_NHWC, beside_NHWC, counted_N, _known(batch, mean, var), 1), batch

        of_parts = jax.tree.map(
            lambda a: a.reshape(self.shares.parts, -1, *a.shape[1:]), (x_NHWC, beside_NHWC, counted_N)
        )
        y_PNHWC, batch = jax.vmap(of_part)(*of_parts)
        known_P1 = (batch.count >= 2)[:, None]
        of_parts = jnp.where(known_P1[..., None], jnp.stack([batch.mean_C, jax.vmap(_unbiased)(batch)], axis=1), 0)
        how_many = known_P1.sum(dtype=jnp.float32)
        self._move(*(of_parts.sum(0) / jnp.maximum(how_many, 1)), how_many > 0)
        return y_PNHWC.reshape(-1, *y_PNHWC.shape[2:])

    def _move(self, mean_C: jax.Array, var_C: jax.Array, known: jax.Array) -> None:
        """The running averages towards these, if they are known."""
        rate = 1 - BATCH_NORM_MOMENTUM
        self.mean.set_value(jnp.where(known, (1 - rate) * self.mean[...] + rate * mean_C, self.mean[...]))
        self.var.set_value(jnp.where(known, (1 - rate) * self.var[...] + rate * var_C, self.var[...]))


def _named(batch: Moments) -> Moments:
    """For the policies of what is computed again (`resnet.py`)."""
    return Moments(*(checkpoint_name(x, "moments") for x in batch))


def _unbiased(batch: Moments) -> jax.Array:
    return batch.var_C * batch.count / jnp.maximum(batch.count - 1, 1)


def _known(batch: Moments, mean_C: jax.Array, var_C: jax.Array) -> Known:
    """The mean, inverse deviation and count to normalise by: the given ones where the batch has not two values."""
    known = batch.count >= 2
    mean_C, var_C = jnp.where(known, batch.mean_C, mean_C), jnp.where(known, batch.var_C, var_C)
    return mean_C, inverse_deviation(var_C), jnp.where(known, batch.count, 0)


class PReLU(nnx.Module):
    """max(x, 0) + slope * min(x, 0), one slope a channel, starting at 0.25; the batch norm before it computes it."""

    def __init__(self, channels: int):
        self.slope = nnx.Param(jnp.full(channels, 0.25, jnp.float32), axes=("channels",))


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes entries with probability `rate` and scales the rest; `key` None means evaluation."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    # Scaled last, so that the gradient is scaled first: the gradient of a bias before it then sums what is kept anyway.
    return (jnp.where(keep, x, 0) / (1 - rate)).astype(x.dtype)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x), with the distribution function of the normal distribution, made in float32; in x's dtype.

    Keeps nothing but x for the gradient, Phi(x) + x phi(x).
    """
    z = x.astype(jnp.float32)
    return (z * _normal_distribution(z)).astype(x.dtype)


def _gelu_backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    z = x.astype(jnp.float32)
    slope = _normal_distribution(z) + z * jnp.exp(-jnp.square(z) / 2) / math.sqrt(2 * math.pi)
    return ((slope * dy).astype(x.dtype),)


def _normal_distribution(z: jax.Array) -> jax.Array:
    # As PyTorch has it. By erfc it would be as exact far below 0, where it is nothing beside what it is added to, and
    # ten times the arithmetic.
    return (1 + jax.lax.erf(math.sqrt(0.5) * z)) / 2


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def reverse_gradient(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x forward, bit for bit; -`scale` times the gradient backward (Ganin and Lempitsky 2015)."""
    still = jax.lax.stop_gradient(x)
    return still - scale * (x - still)


def scale_gradient(x: jax.Array, scale: float) -> jax.Array:
    """x forward, `scale` times the gradient backward (spec, section 7.2); 0 cuts it."""
    return x if scale == 1.0 else x * scale + jax.lax.stop_gradient(x * (1 - scale))
