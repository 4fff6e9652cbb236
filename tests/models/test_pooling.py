"""The max-pool against XLA's, bit for bit, and its union with batch norm and PReLU against both apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.models.pooling import largest, max_pool, spread
from mmpretrain.models.statistics import inverse_deviation, moments, normalize, normalize_and_pool
from tests.models.test_convolution import draw


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 10, 3), (1, 1, 1, 2), (1, 2, 5, 2)])
@pytest.mark.parametrize("levels", [1, 3, 10**6])  # of few levels many are equal: the gradient goes to the first
def test_the_pool_and_the_way_back_are_those_of_reduce_window_bit_for_bit(shape, levels, platform):
    x = jnp.round(draw(0, *shape) * levels) / levels

    @jax.jit
    def both(x, dy):
        expected, back = jax.vjp(max_pool, x)
        y, at, which = largest(x, 2 * x)
        return (y, at, spread(dy, which, shape[1:3], platform)), (expected, 2 * expected, *back(dy))

    # Whole numbers, whose sums have no order.
    dy = jnp.round(8 * draw(1, shape[0], -(-shape[1] // 2), -(-shape[2] // 2), shape[3]))
    for got, expected in zip(*both(x, dy), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("of_batch", [True, False])
@pytest.mark.parametrize("parts", [1, 3])
def test_norm_activation_and_pool_in_one_are_those_one_after_the_other(of_batch, parts):
    x, dy = draw(0, 6, 9, 8, 3), draw(1, 6, 5, 4, 3)
    counted = np.array([1, 0, 1, 1, 0, 0], bool)  # the last of three parts counts nothing
    scale, bias, slope = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.0, -1.0, 3.0]), jnp.array([0.25, 0.5, -1.0])
    batch = moments(x, counted, jnp.zeros(3), parts=parts)
    known = batch.mean_C, inverse_deviation(batch.var_C), batch.count * of_batch

    def apart(x, scale, bias, slope):
        return max_pool(normalize(x, None, counted, scale, bias, *known, slope, parts))

    def in_one(x, scale, bias, slope):
        return normalize_and_pool(x, counted, scale, bias, *known, slope, parts, "cpu")

    @jax.jit
    def gradients(*given):
        (y, back), (expected, expected_back) = (jax.vjp(function, *given) for function in (in_one, apart))
        return (y, *back(dy)), (expected, *expected_back(dy))

    for got, expected in zip(*gradients(x, scale, bias, slope), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(in_one(x, scale, bias, slope), apart(x, scale, bias, slope))
