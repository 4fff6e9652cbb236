"""The max-pool of 3 x 3 at every second row and column: its largest numbers, where they are, and the way back.

Dims: N pictures, H rows, W columns, C channels; R = ceil(H / 2) and Q = ceil(W / 2) windows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def max_pool(x_NHWC: jax.Array) -> jax.Array:
    """The largest of every window, of which those at the edges are smaller: [N, R, Q, C]."""
    return jax.lax.reduce_window(
        x_NHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )


def largest(x_NHWC: jax.Array, beside_NHWC: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest of every window, what is `beside` it, and which of the nine it is: [N, R, Q, C], the last uint8.

    Of equal ones it is the first, row by row.
    """
    (largest, *rest), (at, *besides) = _taps(x_NHWC, -jnp.inf), _taps(beside_NHWC, 0)
    which = jnp.zeros(largest.shape, jnp.uint8)
    for k, (tap, beside) in enumerate(zip(rest, besides, strict=True), start=1):
        more = tap > largest
        which, at = jnp.where(more, jnp.uint8(k), which), jnp.where(more, beside, at)
        largest = jnp.maximum(largest, tap)
    # Written once, all three: XLA for GPUs would keep all comparisons instead, to find the other two out of them later.
    return jax.lax.optimization_barrier((largest, at, which))


def _taps(x_NHWC: jax.Array, outside: float) -> list[jax.Array]:
    """Each of the nine of all windows: [N, R, Q, C]."""
    rows, columns = (-(-side // 2) for side in x_NHWC.shape[1:3])
    padded = jnp.pad(x_NHWC, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=outside)
    return [padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)]


def spread(x_NRQC: jax.Array, which_NRQC: jax.Array, size: tuple[int, int], platform: str) -> jax.Array:
    """What every window has, put where `which` says, and summed where windows meet: [N, H, W, C], `size` being (H, W).

    Row h is row 1 or 2 of window h // 2 and, if it is odd, row 0 of the next one; columns alike. On a GPU it is written
    place by place, so that the compiler joins it to what is done with the result; elsewhere by the parity of rows and
    columns, which is less arithmetic.
    """
    form = _spread_by_place if platform == "gpu" else _spread_by_parity
    return form(x_NRQC, which_NRQC, size)


def _spread_by_parity(x_NRQC: jax.Array, which_NRQC: jax.Array, size: tuple[int, int]) -> jax.Array:
    N, R, Q, C = x_NRQC.shape

    def of(i: int, j: int) -> jax.Array:
        """What goes to row i and column j of each window, at the window that it stands beside."""
        x = jnp.where(which_NRQC == 3 * i + j, x_NRQC, 0)
        return jnp.pad(x[:, i == 0 :, j == 0 :], ((0, 0), (0, i == 0), (0, j == 0), (0, 0)))

    even = jnp.stack([of(1, 1), of(1, 2) + of(1, 0)], axis=3)
    odd = jnp.stack([of(2, 1) + of(0, 1), of(2, 2) + of(2, 0) + of(0, 2) + of(0, 0)], axis=3)
    return jnp.stack([even, odd], axis=2).reshape(N, 2 * R, 2 * Q, C)[:, : size[0], : size[1]]


def _spread_by_place(x_NRQC: jax.Array, which_NRQC: jax.Array, size: tuple[int, int]) -> jax.Array:
    total = jnp.zeros((), x_NRQC.dtype)
    for down in (0, 1):
        for right in (0, 1):
            row_H11, column_W1 = _place(size[0], down)[:, None, None], _place(size[1], right)[:, None]
            which, x = (_at_places(a, down, right, size) for a in (which_NRQC, x_NRQC))
            here = (row_H11 < 3) & (column_W1 < 3) & (which == 3 * row_H11 + column_W1)
            total = total + jnp.where(here, x, 0)
    return total


def _place(size: int, after: int) -> jax.Array:
    """uint8 [size]: where in window h // 2 + after row or column h is, 3 if it is not in it."""
    odd = jnp.arange(size, dtype=jnp.uint8) % 2
    return odd + 1 if after == 0 else 3 * (1 - odd)


def _at_places(x_NRQC: jax.Array, down: int, right: int, size: tuple[int, int]) -> jax.Array:
    """Of window (h // 2 + down, w // 2 + right), at every (h, w)."""
    N, R, Q, C = x_NRQC.shape
    x = jnp.pad(x_NRQC[:, down:, right:], ((0, 0), (0, down), (0, right), (0, 0)))
    x = jnp.broadcast_to(x[:, :, None, :, None], (N, R, 2, Q, 2, C)).reshape(N, 2 * R, 2 * Q, C)
    return x[:, : size[0], : size[1]]
