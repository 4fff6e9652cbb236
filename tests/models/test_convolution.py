"""Convolutions and pooling equal the plain operations, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.models import convolution
from mmpretrain.models.convolution import convolve, convolve_time
from mmpretrain.models.sharing import Undivided


def draw(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def near(got: jax.Array, expected: jax.Array, share: float = 3e-6) -> None:
    got, expected = (np.asarray(a, np.float32) for a in (got, expected))
    np.testing.assert_allclose(got, expected, rtol=0, atol=share * np.abs(expected).max())


def agree(ours, plain, x: jax.Array, kernel: jax.Array, dy: jax.Array) -> None:
    """The two functions of x and kernel do, in their values and in both gradients."""

    @jax.jit
    def both(x, kernel, dy):
        (y, back), (expected, plain_back) = (jax.vjp(function, x, kernel) for function in (ours, plain))
        return (y, *back(dy)), (expected, *plain_back(dy))

    for got, expected in zip(*both(x, kernel, dy), strict=True):
        near(got, expected)


@pytest.fixture
def laid_out(monkeypatch):
    """However few channels there are."""
    monkeypatch.setattr(convolution, "LAID_OUT_CHANNELS", 1)


@pytest.mark.parametrize(("platform", "pictures_at_once"), [("cpu", 1), ("cpu", 3), ("cpu", 100), ("gpu", 1)])
@pytest.mark.parametrize(
    ("size", "stride", "side", "num", "parts"),
    [
        (3, 1, 6, 8, 1), (3, 2, 7, 7, 1), (7, 2, 12, 8, 2), (1, 2, 6, 8, 4), (3, 1, 5, 7, 2),
        # Smaller than the kernel, or their results are.
        (3, 1, 2, 8, 1), (3, 1, 1, 8, 2), (3, 2, 2, 7, 2), (3, 2, 3, 8, 1), (3, 2, 4, 8, 2), (7, 2, 5, 8, 1),
    ],
)  # fmt: skip
def test_a_convolution_has_the_gradients_of_the_plain_one(
    size, stride, side, num, parts, platform, pictures_at_once, monkeypatch, laid_out
):
    out = -(-side // stride)
    laid_out_of_a_place = size * (5 + 6) if stride == 1 else size * size * 5 + 6
    monkeypatch.setattr(convolution, "LAID_OUT_BYTES", pictures_at_once * out * out * laid_out_of_a_place * 4)
    x, kernel, dy = draw(0, num, side, side, 5), draw(1, size, size, 5, 6), draw(2, num, out, out, 6)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pad = [(size // 2, size // 2)] * 2
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    shares = Undivided(parts, platform=platform)
    agree(lambda x, kernel: convolve(x, kernel, stride, shares), plain, x, kernel, dy)


def test_a_kernel_of_few_channels_over_small_pictures_is_left_to_xla():
    def program(channels: int, side: int) -> str:
        x, kernel = jnp.zeros((8, side, side, 5)), jnp.zeros((3, 3, 5, channels))
        return jax.jit(jax.grad(lambda kernel: convolve(x, kernel, 1, Undivided()).sum())).lower(kernel).as_text()

    assert ["dot_general" in program(*size) for size in ((8, 16), (64, 16), (8, 44))] == [False, True, True]


@pytest.mark.parametrize(("side", "stride", "convolutions"), [(2, 1, 0), (3, 1, 3), (1, 1, 0), (2, 2, 0), (4, 2, 2)])
def test_no_convolution_is_left_of_which_xla_would_take_the_picture_for_the_kernel(side, stride, convolutions):
    """It does where the picture has fewer places than the kernel has taps: forward, and of dy in the gradient of x."""
    x, kernel = draw(0, 8, side, side, 4), draw(1, 3, 3, 4, 4)

    def program(x, kernel):
        y, back = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, Undivided()), x, kernel)
        return back(y)

    lowered = jax.jit(program).lower(x, kernel)
    assert lowered.as_text().count("stablehlo.convolution") == convolutions
    assert "rhs_reversal" not in lowered.compile().as_text()


@pytest.mark.parametrize("side", [2, 8])
def test_sums_over_pictures_are_float32_though_pictures_are_bfloat16(side, laid_out):
    x, dy = (draw(seed, 64, side, side, 4).astype(jnp.bfloat16) for seed in (0, 1))
    kernel = draw(2, 3, 3, 4, 4)

    def gradient(x, dy):
        return jax.vjp(lambda kernel: convolve(x, kernel, 1, Undivided()), kernel)[1](dy)[0]

    got = jax.jit(gradient)(x, dy)
    assert got.dtype == jnp.float32
    near(got, jax.jit(gradient)(x.astype(jnp.float32), dy.astype(jnp.float32)), 1e-5)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize(("taps", "frames", "parts"), [(128, 100, 1), (16, 40, 2), (5, 9, 1), (37, 20, 4), (1, 3, 1)])
def test_a_convolution_over_time_is_that_of_each_group(taps, frames, parts, platform):
    clips, groups, width = 4, 3, 5
    x, dy = draw(0, clips, frames, groups * width), draw(1, clips, frames, groups * width)
    kernel = draw(2, taps, width, groups * width)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        padding = ((taps // 2, taps - 1 - taps // 2),)
        pairs = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
        each = [
            jax.lax.conv_general_dilated(x, w, (1,), padding, dimension_numbers=("NWC", "WIO", "NWC")) for x, w in pairs
        ]
        return jnp.concatenate(each, axis=-1)

    shares = Undivided(parts, platform=platform)
    agree(lambda x, kernel: convolve_time(x, kernel, groups, shares), plain, x, kernel, dy)
