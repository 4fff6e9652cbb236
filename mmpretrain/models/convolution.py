"""Convolution over pictures and over time, with gradients that are fast on every platform.

What XLA makes of the plain operations is slow in places: on the CPU the gradient of a kernel, which it takes as a
convolution with kernels as large as the pictures, and pictures smaller than a kernel; everywhere a convolution in
groups.
Dims: N pictures, H rows, W columns, C channels, I in, O out; B clips, T frames, D width, G groups.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmpretrain.models.sharing import Shares

LAID_OUT_BYTES = 2 * 2**20  # at a time, for the gradient of a kernel: what a core's caches hold
# From where on that pays on a CPU: channels of the result, or numbers in a picture's result.
LAID_OUT_CHANNELS, LAID_OUT_RESULTS = 64, 10_000
UNFOLDED_TAPS = 16  # of a convolution over time, at once
BLOCK_FRAMES = 16  # that one row of a product makes, on a GPU
BLOCK_CHANNELS = 16  # below this a GPU has blocks of pixels for channels


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int, shares: Shares) -> jax.Array:
    """The convolution with a square kernel of odd size, as far padded as it reaches, in x's dtype.

    shares: how N is cut over devices; each sums the gradient of the kernel over its own pictures first.
    """
    return _form(x_NHWC, len(kernel_HWIO), stride, shares)(x_NHWC, kernel_HWIO, stride)


def _form(
    x_NHWC: jax.Array, size: int, stride: int, shares: Shares
) -> Callable[[jax.Array, jax.Array, int], jax.Array]:
    if shares.platform == "cpu" and _is_small(x_NHWC, size):
        return _as_product
    return _by_blocks if shares.platform == "gpu" and stride == 2 and x_NHWC.shape[-1] < BLOCK_CHANNELS else _plain


def _is_small(picture_NHWC: jax.Array, size: int) -> bool:
    """Whether pictures have fewer places than the kernel has taps.

    XLA then takes the picture for the kernel and the kernel for the picture, and its CPU has nothing but a plain loop
    for what comes of it: up to 150 times slower than a product.
    """
    return math.prod(picture_NHWC.shape[1:3]) < size * size


def _plain(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int) -> jax.Array:
    pad = kernel_HWIO.shape[0] // 2
    return _convolution(x_NHWC, kernel_HWIO, stride, (pad, pad))


def _convolution(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x_NHWC, kernel_HWIO.astype(x_NHWC.dtype), (stride, stride), (padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _as_product(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int) -> jax.Array:
    """As one product of matrices: [N, rows, columns, O]."""
    N, H, W, _ = x_NHWC.shape
    matrix = _matrix(kernel_HWIO, H, W, stride).astype(x_NHWC.dtype)
    return (x_NHWC.reshape(N, -1) @ matrix).reshape(N, -(-H // stride), -(-W // stride), -1)


def _matrix(kernel_HWIO: jax.Array, H: int, W: int, stride: int) -> jax.Array:
    """[H W I, rows columns O]: each place of the result from all of a small picture, most within its reach."""
    c_in = kernel_HWIO.shape[2]
    each = _for_each_result(_for_each_result(kernel_HWIO, 1, W, stride), 0, H, stride)  # H, rows, W, columns, I, O
    return each.transpose(0, 2, 4, 1, 3, 5).reshape(H * W * c_in, -1)


def _for_each_result(kernel: jax.Array, axis: int, length: int, stride: int) -> jax.Array:
    """An axis of taps to two: places of the picture, places of the result; the tap between them, 0 for none."""
    padded = jnp.pad(kernel, [(length, length) if i == axis else (0, 0) for i in range(kernel.ndim)])
    first = length + kernel.shape[axis] // 2
    return jnp.stack(
        [jax.lax.slice_in_dim(padded, first - i, first - i + length, axis=axis) for i in range(0, length, stride)],
        axis=axis + 1,
    )


def _by_blocks(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int) -> jax.Array:
    """With the pixels of a block of `stride` x `stride` as channels; a GPU's convolutions want a multiple of 8 of them.

    Taps then are of blocks: zeros before and after make the kernel begin and end with one.
    """
    (_, H, W, _), (size, _, _, c_out) = x_NHWC.shape, kernel_HWIO.shape
    before = -(size // 2) % stride
    taps = -(-(before + size) // stride)  # in blocks
    reach = (size // 2 + before) // stride
    kernel = jnp.pad(kernel_HWIO, (*[(before, taps * stride - before - size)] * 2, (0, 0), (0, 0)))
    kernel = _blocks(kernel.reshape(1, taps * stride, taps * stride, -1), stride).reshape(taps, taps, -1, c_out)
    x = _blocks(jnp.pad(x_NHWC, ((0, 0), (0, -H % stride), (0, -W % stride), (0, 0))), stride)
    more = -x.shape[-1] % 8
    x, kernel = jnp.pad(x, (*[(0, 0)] * 3, (0, more))), jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))
    return _convolution(x, kernel, 1, (reach, taps - 1 - reach))


def _blocks(x_NHWC: jax.Array, side: int) -> jax.Array:
    """[N, H / side, W / side, side side C]."""
    N, H, W, C = x_NHWC.shape
    x = x_NHWC.reshape(N, H // side, side, W // side, side, C).swapaxes(2, 3)
    return x.reshape(N, H // side, W // side, side * side * C)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, shares: Shares
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(x, kernel, stride, shares), (x, kernel)


def _backward(
    stride: int, shares: Shares, kept: tuple[jax.Array, jax.Array], dy_NHWC: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    size, on_cpu = len(kernel), shares.platform == "cpu"
    # XLA makes the gradient of x a convolution of dy.
    of_x = _as_product if on_cpu and _is_small(dy_NHWC, size) else _plain
    (dx,) = jax.vjp(lambda x: of_x(x, kernel, stride), x)[1](dy_NHWC)
    laying_out_pays = dy_NHWC.shape[-1] >= LAID_OUT_CHANNELS or math.prod(dy_NHWC.shape[1:]) >= LAID_OUT_RESULTS
    if on_cpu and (laying_out_pays or _is_small(x, size)):
        d_kernel = _kernel_gradient(x, dy_NHWC, size=size, stride=stride, parts=shares.parts)
    else:
        form = _form(x, size, stride, shares)
        (d_kernel,) = jax.vjp(lambda kernel: form(x, kernel, stride), kernel)[1](dy_NHWC)
    return dx, d_kernel.astype(kernel.dtype)


convolve.defvjp(_forward, _backward)


def _kernel_gradient(x_NHWC: jax.Array, dy_NHWC: jax.Array, *, size: int, stride: int, parts: int) -> jax.Array:
    """float32 [size, size, I, O]: products of small pictures, or of what is laid out of a few pictures at a time."""
    of_part = _kernel_gradient_of_small if _is_small(x_NHWC, size) else _kernel_gradient_of_part
    of_part = functools.partial(of_part, size=size, stride=stride)
    return jax.vmap(of_part)(_cut(x_NHWC, parts), _cut(dy_NHWC, parts)).sum(0)


def _kernel_gradient_of_small(x_NHWC: jax.Array, dy_NHWC: jax.Array, *, size: int, stride: int) -> jax.Array:
    """float32 [size, size, I, O]."""
    (N, H, W, c_in), c_out = x_NHWC.shape, dy_NHWC.shape[-1]
    d_matrix = jnp.einsum(
        "NI,NO->IO", x_NHWC.reshape(N, -1), dy_NHWC.reshape(N, -1), preferred_element_type=jnp.float32
    )
    kernel = jax.ShapeDtypeStruct((size, size, c_in, c_out), jnp.float32)
    return jax.linear_transpose(lambda kernel: _matrix(kernel, H, W, stride), kernel)(d_matrix)[0]


def _kernel_gradient_of_part(x_NHWC: jax.Array, dy_NHWC: jax.Array, *, size: int, stride: int) -> jax.Array:
    """float32 [size, size, I, O]."""
    num, c_in, c_out = len(x_NHWC), x_NHWC.shape[-1], dy_NHWC.shape[-1]
    lay_out = _neighbours_of_both if stride == 1 else _patches

    def of_some(x: jax.Array, dy: jax.Array) -> jax.Array:
        of_x, of_dy = (a.reshape(-1, a.shape[-1]) for a in lay_out(x, dy, size, stride))
        return jax.lax.dot_general(of_dy, of_x, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)

    laid_out = jax.eval_shape(lambda x, dy: lay_out(x, dy, size, stride), x_NHWC[:1], dy_NHWC[:1])
    at_once = max(1, LAID_OUT_BYTES // sum(math.prod(a.shape) * a.dtype.itemsize for a in laid_out))
    turns, rest = divmod(num, at_once)
    total = jnp.zeros([a.shape[-1] for a in laid_out[::-1]], jnp.float32)
    if turns > 0:
        # Cut out turn by turn: as what a scan goes over, all pictures but the rest would be copied first.
        def add(turn: jax.Array, total: jax.Array) -> jax.Array:
            some = (jax.lax.dynamic_slice_in_dim(a, turn * at_once, at_once) for a in (x_NHWC, dy_NHWC))
            return total + of_some(*some)

        total = jax.lax.fori_loop(0, turns, add, total)
    if rest:
        total += of_some(x_NHWC[-rest:], dy_NHWC[-rest:])
    if stride > 1:
        return total.T.reshape(size, size, c_in, c_out)
    return total.reshape(size, c_out, size, c_in).transpose(0, 2, 3, 1)[::-1]  # rows, O, columns, I


def _neighbours_of_both(x: jax.Array, dy: jax.Array, size: int, stride: int) -> tuple[jax.Array, jax.Array]:
    """Of stride 1: x beside its neighbours in the row, [N, H, W, size I], and dy beside its own in the column,
    [N, H, W, size O]. The sum over all places of their products is the gradient, its rows from the last to the first:
    2 size copies of a picture, of which patches are size^2.
    """
    return _beside(x, 2, size), _beside(dy, 1, size)


def _beside(x_NHWC: jax.Array, axis: int, size: int) -> jax.Array:
    """What lies around each place along an axis, as more channels; 0 beyond the ends."""
    reach, length = size // 2, x_NHWC.shape[axis]
    padded = jnp.pad(x_NHWC, [(reach, reach) if i == axis else (0, 0) for i in range(4)])
    shifted = [jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(size)]
    return jnp.concatenate(shifted, axis=-1)


def _patches(x_NHWC: jax.Array, dy_NHWC: jax.Array, size: int, stride: int) -> tuple[jax.Array, jax.Array]:
    """What each place of the output is a sum of, [N, rows, columns, size size I], and dy as it is."""
    pad, (_, rows, columns, _) = size // 2, dy_NHWC.shape
    padded = jnp.pad(x_NHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    ends = stride * (rows - 1) + 1, stride * (columns - 1) + 1
    taps = [padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(taps, axis=-1), dy_NHWC


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_time(x_BTD: jax.Array, kernel_KID: jax.Array, groups: int, shares: Shares) -> jax.Array:
    """A convolution over time in groups, each of I = D / groups channels, with K taps of which K // 2 lie before.

    As products of matrices: XLA's convolution in groups gathers the whole batch on every device (openxla/xla#47945),
    its gradient of the kernel is wrong on a mesh with an axis that does not cut the batch (jaxlib 0.10.2;
    tests/sharding would see it), and one convolution a group takes ten times as long on the CPU.
    shares: how B is cut over devices; each sums the gradient of the kernel over its own clips first.
    Returns [B, T, D] in x's dtype.
    """
    return _correlate(x_BTD, kernel_KID.astype(x_BTD.dtype), groups, len(kernel_KID) // 2, shares)


def _correlate(x_BTD: jax.Array, kernel_KID: jax.Array, groups: int, before: int, shares: Shares) -> jax.Array:
    """y[t] = sum over k of x[t + k - before] kernel[k], group by group."""
    x_GBTI, kernel_GKIO = _split(x_BTD, groups), _split(kernel_KID, groups)
    if shares.platform == "gpu":
        return _merge(jax.vmap(functools.partial(_correlate_by_frames, before=before))(x_GBTI, kernel_GKIO))
    return _merge(jax.lax.map(lambda both: _correlate_by_taps(*both, before), (x_GBTI, kernel_GKIO)))


def _correlate_by_taps(x_BTI: jax.Array, kernel_KIO: jax.Array, before: int) -> jax.Array:
    """The sum of a few products, each of some taps: the least arithmetic, and little to lay out."""
    T, (K, width, _) = x_BTI.shape[1], kernel_KIO.shape
    unfolded = _unfold(x_BTI, K, before)
    kernels = [kernel_KIO[k : k + UNFOLDED_TAPS].reshape(-1, width) for k in range(0, K, UNFOLDED_TAPS)]
    return sum(unfolded[:, i * UNFOLDED_TAPS :][:, :T, : len(kernel)] @ kernel for i, kernel in enumerate(kernels))


def _unfold(x_BTI: jax.Array, num_taps: int, before: int) -> jax.Array:
    """Beside one another what some taps that follow one another see: [B, T + a multiple, UNFOLDED_TAPS I]."""
    T, turns = x_BTI.shape[1], -(-num_taps // UNFOLDED_TAPS)
    length = T + (turns - 1) * UNFOLDED_TAPS
    padded = jnp.pad(x_BTI, ((0, 0), (before, length + UNFOLDED_TAPS - 1 - T - before), (0, 0)))
    return jnp.concatenate([padded[:, k : k + length] for k in range(UNFOLDED_TAPS)], axis=-1)


def _correlate_by_frames(x_BTI: jax.Array, kernel_KIO: jax.Array, before: int) -> jax.Array:
    """One product, of which a row makes BLOCK_FRAMES frames: an eighth more arithmetic, in large matrices."""
    (B, T, _), (K, _, width) = x_BTI.shape, kernel_KIO.shape
    # Laid out before the product: what XLA for GPUs would make of all in one takes minutes to compile.
    windows, band = jax.lax.optimization_barrier((_windows(x_BTI, K, before), _band(kernel_KIO)))
    return (windows @ band).reshape(B, -1, width)[:, :T]


def _windows(x_BTI: jax.Array, num_taps: int, before: int) -> jax.Array:
    """All that BLOCK_FRAMES frames which follow one another see: [B, T / BLOCK_FRAMES, frames seen * I]."""
    B, T, width = x_BTI.shape
    turns, seen = -(-T // BLOCK_FRAMES), _blocks_seen(num_taps)
    end = (turns + seen - 1) * BLOCK_FRAMES - before - T
    blocks = jnp.pad(x_BTI, ((0, 0), (before, end), (0, 0))).reshape(B, -1, BLOCK_FRAMES * width)
    return jnp.concatenate([blocks[:, i : i + turns] for i in range(seen)], axis=-1)


def _band(kernel_KIO: jax.Array) -> jax.Array:
    """The kernel for every frame of a block, a frame further each: [frames seen * I, BLOCK_FRAMES * O]."""
    K, _, c_out = kernel_KIO.shape
    more = _blocks_seen(K) * BLOCK_FRAMES - K
    shifted = [jnp.pad(kernel_KIO, ((i, more - i), (0, 0), (0, 0))) for i in range(BLOCK_FRAMES)]
    return jnp.stack(shifted, axis=2).reshape(-1, BLOCK_FRAMES * c_out)


def _blocks_seen(num_taps: int) -> int:
    return -(-(num_taps + BLOCK_FRAMES - 1) // BLOCK_FRAMES)


def _split(x: jax.Array, groups: int) -> jax.Array:
    """[..., D] to [groups, ..., D / groups]."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], groups, -1), -2, 0)


def _merge(x: jax.Array) -> jax.Array:
    """The inverse of `_split`."""
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def _time_forward(
    x: jax.Array, kernel: jax.Array, groups: int, shares: Shares
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_time(x, kernel, groups, shares), (x, kernel)


def _time_backward(
    groups: int, shares: Shares, kept: tuple[jax.Array, jax.Array], dy_BTD: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_BTD, kernel_KID = kept
    K, parts = len(kernel_KID), shares.parts // shares.per_clip
    turned = _merge(_split(kernel_KID.astype(dy_BTD.dtype), groups)[:, ::-1].swapaxes(2, 3))
    dx = _correlate(dy_BTD, turned, groups, K - 1 - K // 2, shares)
    each = (_split(x_BTD, groups), _split(dy_BTD, groups))
    if shares.platform == "gpu":
        d_kernel = jax.vmap(functools.partial(_time_gradient_by_frames, num_taps=K, parts=parts))(*each)
    else:
        d_kernel = jax.lax.map(lambda both: _time_gradient_by_taps(*both, K, parts), each)
    return dx, _merge(d_kernel).astype(kernel_KID.dtype)


def _time_gradient_by_taps(x_BTI: jax.Array, dy_BTO: jax.Array, num_taps: int, parts: int) -> jax.Array:
    """float32 [K, I, O]."""
    T, width = x_BTI.shape[1:]
    unfolded, dy = _unfold(x_BTI, num_taps, num_taps // 2), _cut(dy_BTO, parts)
    pieces = [
        jnp.einsum("PBTI,PBTO->PIO", _cut(unfolded[:, k : k + T], parts), dy, preferred_element_type=jnp.float32)
        for k in range(0, num_taps, UNFOLDED_TAPS)
    ]
    return jnp.concatenate(pieces, axis=1)[:, : num_taps * width].sum(0).reshape(num_taps, width, -1)


def _time_gradient_by_frames(x_BTI: jax.Array, dy_BTO: jax.Array, num_taps: int, parts: int) -> jax.Array:
    """The same."""
    B, T, width = dy_BTO.shape
    dy = jnp.pad(dy_BTO, ((0, 0), (0, -T % BLOCK_FRAMES), (0, 0))).reshape(B, -1, BLOCK_FRAMES * width)
    windows, dy = jax.lax.optimization_barrier((_windows(x_BTI, num_taps, num_taps // 2), dy))
    d_band = jnp.einsum("PBNI,PBNO->PIO", _cut(windows, parts), _cut(dy, parts), preferred_element_type=jnp.float32)
    like = jax.ShapeDtypeStruct((num_taps, x_BTI.shape[-1], width), jnp.float32)
    d_band = jax.lax.optimization_barrier(d_band)
    return jax.vmap(lambda d: jax.linear_transpose(_band, like)(d)[0])(d_band).sum(0)


convolve_time.defvjp(_time_forward, _time_backward)


def _cut(x: jax.Array, parts: int) -> jax.Array:
    """[N, ...] to [parts, N / parts, ...], or [1, N, ...] where that does not divide."""
    return x.reshape(parts if len(x) % parts == 0 else 1, -1, *x.shape[1:])
