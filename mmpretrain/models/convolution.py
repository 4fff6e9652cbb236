"""Convolution over pictures and over time, and max-pooling, with gradients that are fast on every platform.

What XLA makes of the plain operations is slow in places: on the CPU the gradient of a kernel, which it takes as a
convolution with kernels as large as the pictures; everywhere the gradient of a max-pool, and a convolution in groups.
Dims: N pictures, H rows, W columns, C channels, I in, O out; B clips, T frames, D width, G groups.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

PATCH_BYTES = 6 * 2**20  # of the patches that are laid out at a time: what a core's caches hold
# From where on patches pay on a CPU: channels of the result, or numbers in a picture's result.
PATCH_CHANNELS, PATCH_RESULTS = 64, 10_000
UNFOLDED_TAPS = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int, parts: int = 1) -> jax.Array:
    """The convolution with a square kernel of odd size, as far padded as it reaches, in x's dtype.

    parts: the devices that N is cut over; each sums the gradient of the kernel over its own pictures first.
    """
    return _plain(x_NHWC, kernel_HWIO, stride)


def _plain(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int) -> jax.Array:
    pad = kernel_HWIO.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x_NHWC, kernel_HWIO.astype(x_NHWC.dtype), (stride, stride), ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _forward(x: jax.Array, kernel: jax.Array, stride: int, parts: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    del parts
    return _plain(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, parts: int, kept: tuple[jax.Array, jax.Array], dy_NHWC: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    (dx,) = jax.vjp(lambda x: _plain(x, kernel, stride), x)[1](dy_NHWC)

    def plain(x: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: _plain(x, kernel, stride), kernel)[1](dy)[0].astype(jnp.float32)

    patches_pay = dy_NHWC.shape[-1] >= PATCH_CHANNELS or math.prod(dy_NHWC.shape[1:]) >= PATCH_RESULTS
    by_patches = functools.partial(_kernel_gradient, size=kernel.shape[0], stride=stride, parts=parts)
    d_kernel = jax.lax.platform_dependent(x, dy_NHWC, cpu=by_patches if patches_pay else plain, default=plain)
    return dx, d_kernel.astype(kernel.dtype)


convolve.defvjp(_forward, _backward)


def _kernel_gradient(x_NHWC: jax.Array, dy_NHWC: jax.Array, *, size: int, stride: int, parts: int) -> jax.Array:
    """float32 [size, size, I, O]: products of laid out patches and `dy`, a few pictures at a time."""
    of_part = functools.partial(_kernel_gradient_of_part, size=size, stride=stride)
    d_kernel = jax.vmap(of_part)(_cut(x_NHWC, parts), _cut(dy_NHWC, parts)).sum(0)
    return d_kernel.T.reshape(size, size, x_NHWC.shape[-1], dy_NHWC.shape[-1])


def _kernel_gradient_of_part(x_NHWC: jax.Array, dy_NHWC: jax.Array, *, size: int, stride: int) -> jax.Array:
    """float32 [O, size size I]."""
    num, rows, columns, c_out = dy_NHWC.shape
    width = size * size * x_NHWC.shape[-1]

    def of_some(x: jax.Array, dy: jax.Array) -> jax.Array:
        patches = _patches(x, size, stride, rows, columns).reshape(-1, width)
        return jax.lax.dot_general(
            dy.reshape(-1, c_out), patches, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )

    at_once = max(1, PATCH_BYTES // (rows * columns * width * x_NHWC.dtype.itemsize))
    turns = num // at_once
    total = jnp.zeros((c_out, width), jnp.float32)
    if turns > 0:
        runs = [a[: turns * at_once].reshape(turns, at_once, *a.shape[1:]) for a in (x_NHWC, dy_NHWC)]
        total, _ = jax.lax.scan(lambda sum_, run: (sum_ + of_some(*run), None), total, runs)
    rest = turns * at_once
    return total + of_some(x_NHWC[rest:], dy_NHWC[rest:]) if rest < num else total


def _patches(x_NHWC: jax.Array, size: int, stride: int, rows: int, columns: int) -> jax.Array:
    """What each place of the output is a sum of: [N, rows, columns, size size C]."""
    pad = size // 2
    padded = jnp.pad(x_NHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    ends = stride * (rows - 1) + 1, stride * (columns - 1) + 1
    taps = [padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(taps, axis=-1)


@jax.custom_vjp
def max_pool(x_NHWC: jax.Array) -> jax.Array:
    """The largest of 3 x 3 at every second row and column, fewer at the edges: [N, ceil(H/2), ceil(W/2), C].

    The gradient goes to the first of equal ones, row by row.
    """
    return jax.lax.reduce_window(
        x_NHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )


def _pool_forward(x_NHWC: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The result, and which of the nine it is, uint8, with an array of the pictures' size."""
    rows, columns = (-(-side // 2) for side in x_NHWC.shape[1:3])
    padded = jnp.pad(x_NHWC, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    taps = [padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)]
    largest, which = taps[0], jnp.zeros(taps[0].shape, jnp.uint8)
    for k, tap in enumerate(taps[1:], start=1):
        which = jnp.where(tap > largest, jnp.uint8(k), which)
        largest = jnp.maximum(largest, tap)
    return largest, (which, jnp.zeros((0, *x_NHWC.shape[1:]), jnp.uint8))


def _pool_backward(kept: tuple[jax.Array, jax.Array], dy_NHWC: jax.Array) -> tuple[jax.Array]:
    """Row 2r is the middle row of window r; row 2r + 1 is the last of window r and the first of the next."""
    which, like = kept
    num, rows, columns, channels = dy_NHWC.shape

    def of(i: int, j: int) -> jax.Array:
        """What goes to row i and column j of each window, at the window that it stands beside."""
        dy = jnp.where(which == 3 * i + j, dy_NHWC, 0)
        return jnp.pad(dy[:, i == 0 :, j == 0 :], ((0, 0), (0, i == 0), (0, j == 0), (0, 0)))

    even = jnp.stack([of(1, 1), of(1, 2) + of(1, 0)], axis=3)
    odd = jnp.stack([of(2, 1) + of(0, 1), of(2, 2) + of(2, 0) + of(0, 2) + of(0, 0)], axis=3)
    dx = jnp.stack([even, odd], axis=2).reshape(num, 2 * rows, 2 * columns, channels)
    return (dx[:, : like.shape[1], : like.shape[2]],)


max_pool.defvjp(_pool_forward, _pool_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_time(x_BTD: jax.Array, kernel_KID: jax.Array, groups: int, parts: int = 1) -> jax.Array:
    """A convolution over time in groups, each of I = D / groups channels, with K taps of which K // 2 lie before.

    As products of matrices: XLA's convolution in groups gathers the whole batch on every device (openxla/xla#47945),
    its gradient of the kernel is wrong on a mesh with an axis that does not cut the batch (jaxlib 0.10.2;
    tests/sharding would see it), and one convolution a group takes ten times as long on the CPU.
    parts: the devices that B is cut over; each sums the gradient of the kernel over its own clips first.
    Returns [B, T, D] in x's dtype.
    """
    before = len(kernel_KID) // 2
    return _correlate(x_BTD, kernel_KID.astype(x_BTD.dtype), groups, before)


def _correlate(x_BTD: jax.Array, kernel_KID: jax.Array, groups: int, before: int) -> jax.Array:
    """y[t] = sum over k of x[t + k - before] kernel[k], group by group."""
    T, (K, width, _) = x_BTD.shape[1], kernel_KID.shape

    def of_group(x_and_kernel: tuple[jax.Array, jax.Array]) -> jax.Array:
        x_BTI, kernel_KIO = x_and_kernel
        unfolded = _unfold(x_BTI, K, before)
        kernels = [kernel_KIO[k : k + UNFOLDED_TAPS].reshape(-1, width) for k in range(0, K, UNFOLDED_TAPS)]
        return sum(unfolded[:, i * UNFOLDED_TAPS :][:, :T, : len(kernel)] @ kernel for i, kernel in enumerate(kernels))

    return _merge(jax.lax.map(of_group, (_split(x_BTD, groups), _split(kernel_KID, groups))))


def _unfold(x_BTI: jax.Array, num_taps: int, before: int) -> jax.Array:
    """Beside one another what some taps that follow one another see: [B, T + a multiple, UNFOLDED_TAPS I]."""
    T, turns = x_BTI.shape[1], -(-num_taps // UNFOLDED_TAPS)
    length = T + (turns - 1) * UNFOLDED_TAPS
    padded = jnp.pad(x_BTI, ((0, 0), (before, length + UNFOLDED_TAPS - 1 - T - before), (0, 0)))
    return jnp.concatenate([padded[:, k : k + length] for k in range(UNFOLDED_TAPS)], axis=-1)


def _split(x: jax.Array, groups: int) -> jax.Array:
    """[..., D] to [groups, ..., D / groups]."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], groups, -1), -2, 0)


def _merge(x: jax.Array) -> jax.Array:
    """The inverse of `_split`."""
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def _time_forward(
    x: jax.Array, kernel: jax.Array, groups: int, parts: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_time(x, kernel, groups, parts), (x, kernel)


def _time_backward(
    groups: int, parts: int, kept: tuple[jax.Array, jax.Array], dy_BTD: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_BTD, kernel_KID = kept
    T, (K, width, _) = x_BTD.shape[1], kernel_KID.shape
    turned = _merge(_split(kernel_KID.astype(dy_BTD.dtype), groups)[:, ::-1].swapaxes(2, 3))
    dx = _correlate(dy_BTD, turned, groups, K - 1 - K // 2)

    def of_group(x_and_dy: tuple[jax.Array, jax.Array]) -> jax.Array:
        x_BTI, dy_BTO = x_and_dy
        unfolded = _unfold(x_BTI, K, K // 2)
        dy = _cut(dy_BTO, parts)
        pieces = [
            jnp.einsum("PBTI,PBTO->PIO", _cut(unfolded[:, k : k + T], parts), dy, preferred_element_type=jnp.float32)
            for k in range(0, K, UNFOLDED_TAPS)
        ]
        return jnp.concatenate(pieces, axis=1)[:, : K * width]

    d_kernel = jax.lax.map(of_group, (_split(x_BTD, groups), _split(dy_BTD, groups))).sum(1)
    return dx, _merge(d_kernel.reshape(groups, K, width, width)).astype(kernel_KID.dtype)


convolve_time.defvjp(_time_forward, _time_backward)


def _cut(x: jax.Array, parts: int) -> jax.Array:
    """[N, ...] to [parts, N / parts, ...], or [1, N, ...] where that does not divide."""
    return x.reshape(parts if len(x) % parts == 0 else 1, -1, *x.shape[1:])
