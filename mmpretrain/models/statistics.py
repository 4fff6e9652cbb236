"""Batch normalisation as mathematics: moments of what counts in a batch, and the gradient through them.

Dims: N pictures, H rows, W columns, C channels, P parts; R = ceil(H/2) and Q = ceil(W/2) windows of a pool.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmpretrain.models.pooling import largest, max_pool, spread

BATCH_NORM_EPS = 1e-5
# What rounding to float32 (1e-7) leaves of equal numbers: of a variance, as a share of mean^2; of the spread between
# parts, as a share of sum n_p d_p^2.
MEAN_ROUNDING, SHIFT_ROUNDING = 1e-12, 4e-7
FEW = 32  # pictures, whose mean is near that of all


class Moments(NamedTuple):
    """count: float32, of the values of each channel. var_C: biased, and 0 where it is nothing but rounding."""

    count: jax.Array
    mean_C: jax.Array
    var_C: jax.Array


def moments(x_NHWC: jax.Array, counted_N: jax.Array, shift_C: jax.Array, *, parts: int = 1) -> Moments:
    """Count, mean and variance over the counted pictures, in float32. counted_N: bool.

    Each of `parts` equal runs of pictures, such as those that one device has, makes its own count n_p, mean m_p and sum
    M_p of squared distances from it, which is exact and waits for no other. They are merged as Chan, Golub and LeVeque
    do (1979), about a shift k that everyone knows, the running mean: with d_p = m_p - k,

        mean = k + sum n_p d_p / n      n var = sum M_p + (sum n_p d_p^2 - (sum n_p d_p)^2 / n)

    which is one sum over devices of three numbers a channel (the count is the same in all layers), where a variance
    about the mean of all would wait for that mean. Only the bracket, the spread between parts, is a difference of large
    numbers: rounding makes it uncertain by 1e-7 (mean - k)^2, and what does not stand out of that counts as 0. So the
    variance is right to 1e-5 while the mean of a batch is within ten deviations of the running one, and is never less
    than the spread within parts, however far it is. Plain squares (k = 0, no parts) would lose all of it.

    On an accelerator pictures are read once: M_p comes from squares about the mean of a few of the part's pictures,
    which is not far from m_p.
    """
    size = x_NHWC.shape[1] * x_NHWC.shape[2]
    x = x_NHWC.reshape(parts, -1, *x_NHWC.shape[1:])
    counts = counted_N.reshape(parts, -1, 1, 1, 1)
    n_P1 = counted_N.reshape(parts, -1).sum(1, keepdims=True, dtype=jnp.float32) * size
    count = counted_N.sum(dtype=jnp.float32) * size  # of all layers one sum
    stride = max(1, x.shape[1] // FEW)
    near_PC = _means(x[:, ::stride], counts[:, ::stride], shift_C)
    # Two sums of x alone: a compiler makes both in one loop or, on a CPU, in two, and writes nothing in between.
    x = x.astype(jnp.float32)
    mean_PC = jnp.where(counts, x, 0).sum((1, 2, 3)) / jnp.maximum(n_P1, 1)
    about_PC = jnp.where(counts, jnp.square(x - near_PC[:, None, None, None]), 0).sum((1, 2, 3))
    squares_PC = jnp.maximum(about_PC - n_P1 * jnp.square(mean_PC - near_PC), 0)
    if parts == 1:
        mean_C, squares_C = mean_PC[0], squares_PC[0]
    else:
        d_PC = jnp.where(n_P1 > 0, mean_PC - shift_C, 0)
        rows = [n_P1 * d_PC, n_P1 * jnp.square(d_PC), squares_PC]
        first_C, second_C, within_C = jnp.stack(rows, axis=1).sum(0)
        d_C = first_C / jnp.maximum(count, 1)
        between_C, doubt_C = second_C - first_C * d_C, SHIFT_ROUNDING * second_C
        mean_C, squares_C = shift_C + d_C, within_C + jnp.where(between_C > doubt_C, between_C, 0)
    var_C = squares_C / jnp.maximum(count, 1)
    return Moments(count, mean_C, jnp.where(var_C > MEAN_ROUNDING * jnp.square(mean_C), var_C, 0))


def _means(x_PNHWC: jax.Array, counts_PN111: jax.Array, otherwise_C: jax.Array) -> jax.Array:
    """[P, C], over the counted pictures, float32."""
    n_P1 = counts_PN111.sum((1, 2, 3), dtype=jnp.float32) * x_PNHWC.shape[2] * x_PNHWC.shape[3]
    sums_PC = jnp.where(counts_PN111, x_PNHWC.astype(jnp.float32), 0).sum((1, 2, 3))
    return jnp.where(n_P1 > 0, sums_PC / jnp.maximum(n_P1, 1), otherwise_C)


def inverse_deviation(var_C: jax.Array) -> jax.Array:
    """1 / sqrt(var + eps), and 0 for a channel that is the same everywhere: it is its bias, and passes no gradient on.

    Else such channels would multiply the gradient by 316 a layer, to infinity in 17 of them, though a batch without any
    contrast teaches nothing.
    """
    return jnp.where(var_C > 0, jax.lax.rsqrt(var_C + BATCH_NORM_EPS), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(9,))
def normalize(
    x_NHWC: jax.Array,
    beside_NHWC: jax.Array | None,
    counted_N: jax.Array,
    scale_C: jax.Array,
    bias_C: jax.Array,
    mean_C: jax.Array,
    inverse_C: jax.Array,
    count: jax.Array,
    slope_C: jax.Array | None,
    parts: int,
) -> jax.Array:
    """(x - mean) * inverse * scale + bias of every picture, in x's dtype.

    With `slope_C`, that of a PReLU: PReLU of this and what is `beside` it, if anything, and 0, with no gradient, for
    pictures that do not count. All in one: the backward pass then keeps x and `beside` alone, and reads them once for
    all three sums and once more for the gradient of x. On a GPU reading and writing is all that batch norms cost.

    count: of the values of the counted pictures that mean and inverse are the moments of, which the gradient then goes
    through; 0 where they are constants. The backward pass needs two sums a channel, which are one over devices, and are
    the gradients of bias and scale besides, and a third for the slope.
    """
    del parts
    return _scaled(counted_N, scale_C, bias_C, mean_C, inverse_C, count, slope_C)(x_NHWC, beside_NHWC)


class _Scaled(NamedTuple):
    """What is done to every number of a channel: gain * x + offset, and what follows it."""

    counted_N: jax.Array
    gain_C: jax.Array
    offset_C: jax.Array
    mean_C: jax.Array
    inverse_C: jax.Array
    count: jax.Array
    slope_C: jax.Array | None

    def __call__(self, x_NHWC: jax.Array, beside_NHWC: jax.Array | None) -> jax.Array:
        y = self.before_activation(x_NHWC, beside_NHWC)
        if self.slope_C is None:
            return y
        return jnp.where(self.counted_N111, jnp.where(y >= 0, y, self.slope_C.astype(y.dtype) * y), 0)

    @property
    def counted_N111(self) -> jax.Array:
        return self.counted_N[:, None, None, None]

    def before_activation(self, x_NHWC: jax.Array, beside_NHWC: jax.Array | None) -> jax.Array:
        y = x_NHWC * self.gain_C.astype(x_NHWC.dtype) + self.offset_C.astype(x_NHWC.dtype)
        return y if beside_NHWC is None else beside_NHWC + y

    def backward(
        self, x_NHWC: jax.Array, beside_NHWC: jax.Array | None, dy_NHWC: jax.Array, parts: int
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """The gradient before the activation, in float32, and those of scale, bias and, if there is one, slope."""
        dy = dy_NHWC.astype(jnp.float32)
        d_slope = []
        if self.slope_C is not None:
            z = self.before_activation(x_NHWC, beside_NHWC).astype(jnp.float32)
            d_slope = [jnp.where(self.counted_N111 & (z < 0), dy * z, 0)]
            dy = jnp.where(self.counted_N111, jnp.where(z >= 0, dy, self.slope_C * dy), 0)
        each = [dy, dy * (x_NHWC.astype(jnp.float32) - self.mean_C), *d_slope]
        of_parts = [a.reshape(parts, -1, *a.shape[1:]).sum((1, 2, 3)) for a in each]
        d_bias, d_scale, *d_slope = jnp.stack(of_parts, axis=1).sum(0)
        return dy, (d_scale * self.inverse_C, d_bias, *d_slope)

    def of_input(self, x_NHWC: jax.Array, dy_NHWC: jax.Array, d_scale: jax.Array, d_bias: jax.Array) -> jax.Array:
        """The gradient of x, where `dy` is that before the activation.

        Through the moments: gain / count * (d_bias + (x - mean) * inverse * d_scale), by as few vectors as can be.
        """
        centred = x_NHWC.astype(jnp.float32) - self.mean_C
        share_C = jnp.where(self.count > 0, self.gain_C / jnp.maximum(self.count, 1), 0)
        through = share_C * d_bias + centred * (share_C * self.inverse_C * d_scale)
        return (self.gain_C * dy_NHWC - jnp.where(self.counted_N111, through, 0)).astype(x_NHWC.dtype)


def _scaled(counted_N, scale_C, bias_C, mean_C, inverse_C, count, slope_C) -> _Scaled:
    gain_C = scale_C * inverse_C
    return _Scaled(counted_N, gain_C, bias_C - mean_C * gain_C, mean_C, inverse_C, count, slope_C)


def _forward(x_NHWC, beside_NHWC, *of_channels_and_parts):
    scaled = _scaled(*of_channels_and_parts[:-1])
    return scaled(x_NHWC, beside_NHWC), (x_NHWC, beside_NHWC, scaled)


def _backward(parts: int, kept: Any, dy_NHWC: jax.Array) -> tuple[jax.Array | None, ...]:
    x_NHWC, beside_NHWC, scaled = kept
    dy, (d_scale, d_bias, *d_slope) = scaled.backward(x_NHWC, beside_NHWC, dy_NHWC, parts)
    d_beside = None if beside_NHWC is None else dy.astype(beside_NHWC.dtype)
    dx = scaled.of_input(x_NHWC, dy, d_scale, d_bias)
    return dx, d_beside, None, d_scale, d_bias, None, None, None, *(d_slope or [None])


normalize.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(8, 9))
def normalize_and_pool(
    x_NHWC: jax.Array,
    counted_N: jax.Array,
    scale_C: jax.Array,
    bias_C: jax.Array,
    mean_C: jax.Array,
    inverse_C: jax.Array,
    count: jax.Array,
    slope_C: jax.Array,
    parts: int,
    platform: str,
) -> jax.Array:
    """The max-pool of `normalize` with a PReLU, in one: [N, ceil(H/2), ceil(W/2), C].

    No gradient but that of the largest of a window counts. So the sums are over a quarter of the places, of what x was
    at each largest, and only the gradient of x itself is of all.
    """
    del parts, platform
    return max_pool(_scaled(counted_N, scale_C, bias_C, mean_C, inverse_C, count, slope_C)(x_NHWC, None))


def _pool_forward(x_NHWC, *of_channels_and_more):
    scaled = _scaled(*of_channels_and_more[:-2])
    y_NRQC, x_NRQC, which_NRQC = largest(scaled(x_NHWC, None), x_NHWC)
    return y_NRQC, (x_NHWC, x_NRQC, which_NRQC, scaled)


def _pool_backward(parts: int, platform: str, kept: Any, dy_NRQC: jax.Array) -> tuple[jax.Array | None, ...]:
    x_NHWC, x_NRQC, which_NRQC, scaled = kept
    dy, (d_scale, d_bias, d_slope) = scaled.backward(x_NRQC, None, dy_NRQC, parts)
    dy = spread(dy.astype(x_NHWC.dtype), which_NRQC, x_NHWC.shape[1:3], platform)
    return scaled.of_input(x_NHWC, dy, d_scale, d_bias), None, d_scale, d_bias, None, None, None, d_slope


normalize_and_pool.defvjp(_pool_forward, _pool_backward)
