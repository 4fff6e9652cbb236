"""Single layers against slow NumPy writings, on sizes where a transposed dim would show."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.models.heads import ClusterHead
from mmpretrain.models.layers import BatchNorm, LayerNorm, PReLU, dropout, scale_gradient
from mmpretrain.models.resnet import Stem, neighbours
from mmpretrain.models.sharing import Undivided
from mmpretrain.models.statistics import moments
from mmpretrain.models.transformer import PositionalConv
from tests.tiny import tiny_model

random = np.random.default_rng(0)


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(("size", "groups"), [(4, 2), (5, 1), (1, 3), (8, 6)])
def test_positional_convolution(size, groups):
    B, T, D = 2, 7, 6
    layer = PositionalConv(D, size, groups, rngs=nnx.Rngs(0))
    layer.g[...], layer.bias[...] = random.uniform(1, 2, size), random.normal(size=D)
    x_BTD = random.normal(size=(B, T, D)).astype(np.float32)

    v, g = np.asarray(layer.v[...], np.float64), np.asarray(layer.g[...])
    per_group = D // groups
    expected = np.zeros((B, T, D))
    for t in range(T):
        for d in range(D):
            inputs = slice(d // per_group * per_group, (d // per_group + 1) * per_group)
            for tap in range(size):
                source = t + tap - size // 2  # an even kernel reaches one step further back than ahead
                if 0 <= source < T:
                    weight = g[tap] * v[tap, :, d] / np.sqrt((v[tap] ** 2).sum())
                    expected[:, t, d] += x_BTD[:, source, inputs] @ weight
    np.testing.assert_allclose(layer(x_BTD), gelu(expected + np.asarray(layer.bias[...])), atol=1e-5)


def test_positional_convolution_starts_with_plain_weights():
    layer = PositionalConv(12, 8, 3, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(layer.g[...], np.sqrt((np.asarray(layer.v[...]) ** 2).sum((1, 2))), rtol=1e-6)


@pytest.fixture
def batch_norm():
    layer = BatchNorm(3)
    layer.scale[...], layer.bias[...] = [1.0, 2.0, 0.5], [0.0, -1.0, 3.0]
    layer.mean[...], layer.var[...] = [0.1, 0.2, 0.3], [1.0, 2.0, 3.0]
    return layer


def test_batch_norm_counts_only_the_marked_pictures(batch_norm):
    x = random.normal(2, 3, (5, 4, 2, 3)).astype(np.float32)
    weight = np.array([1, 0, 1, 1, 0], np.float32)
    before_mean, before_var = np.array(batch_norm.mean[...]), np.array(batch_norm.var[...])
    y = batch_norm(x, weight, train=True)

    counted = x[weight > 0].reshape(-1, 3).astype(np.float64)
    mean, var, unbiased = counted.mean(0), counted.var(0), counted.var(0, ddof=1)
    scale, bias = np.asarray(batch_norm.scale[...]), np.asarray(batch_norm.bias[...])
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, atol=2e-5)
    np.testing.assert_allclose(batch_norm.mean[...], 0.9 * before_mean + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(batch_norm.var[...], 0.9 * before_var + 0.1 * unbiased, rtol=1e-5)


def test_batch_norm_in_evaluation_uses_and_keeps_the_averages(batch_norm):
    x = random.normal(size=(2, 4, 2, 3)).astype(np.float32)
    y = batch_norm(x, np.ones(2, np.float32), train=False)
    expected = (x - [0.1, 0.2, 0.3]) / np.sqrt(np.array([1.0, 2.0, 3.0]) + 1e-5) * [1.0, 2.0, 0.5] + [0.0, -1.0, 3.0]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(batch_norm.mean[...], [0.1, 0.2, 0.3])


def test_batch_norm_without_any_picture_keeps_the_averages(batch_norm):
    x = random.normal(size=(2, 4, 2, 3)).astype(np.float32)
    y = batch_norm(x, np.zeros(2, np.float32), train=True)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(batch_norm.mean[...], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(batch_norm.var[...], [1.0, 2.0, 3.0])


def test_batch_norm_of_large_numbers_does_not_cancel(batch_norm):
    x = random.normal(1000, 1, (4, 8, 8, 3)).astype(np.float32)
    y = np.asarray(batch_norm(x, np.ones(4, np.float32), train=True))
    np.testing.assert_allclose(y.std((0, 1, 2)), [1.0, 2.0, 0.5], rtol=1e-3)


def plain_batch_norm(x, weight, scale, bias):
    """Of the counted pictures' moments, for JAX to differentiate."""
    counted = weight[:, None, None, None]
    count = weight.sum() * x.shape[1] * x.shape[2]
    mean = (x * counted).sum((0, 1, 2)) / count
    var = (jnp.square(x - mean) * counted).sum((0, 1, 2)) / count
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
def test_batch_norm_in_parts_has_the_values_gradients_and_averages_of_the_whole(batch_norm, parts, activated):
    x = random.normal(2, 3, (6, 4, 2, 3)).astype(np.float32)
    weight = np.array([1, 0, 1, 1, 0, 0], np.float32)  # the last of three parts counts nothing
    up = random.normal(size=x.shape).astype(np.float32)
    beside = random.normal(size=x.shape).astype(np.float32)
    scale, bias = np.array([1.0, 2.0, 0.5], np.float32), np.array([0.0, -1.0, 3.0], np.float32)
    slope = np.array([0.0, 0.5, -1.0], np.float32)
    graphdef, params, stats = nnx.split(batch_norm, nnx.Param, nnx.BatchStat)

    def ours(x, params, beside, slope):
        layer, act = nnx.merge(graphdef, params, stats, copy=True), PReLU(3)
        layer.shares, act.slope[...] = Undivided(parts), slope
        options = {"act": act, "beside_NHWC": beside} if activated else {}
        return (layer(x, weight, train=True, **options) * up).sum(), nnx.state(layer, nnx.BatchStat)

    def plain(x, scale, bias, beside, slope):
        y = plain_batch_norm(x, weight, scale, bias)
        if activated:
            y = jnp.where(weight[:, None, None, None] > 0, jax.nn.leaky_relu(y + beside, slope), 0)
        return (y * up).sum()

    of_all = jax.value_and_grad(ours, argnums=(0, 1, 2, 3), has_aux=True)
    (value, moved), (dx, dparams, dbeside, dslope) = of_all(x, params, beside, slope)
    expected, (ex, escale, ebias, ebeside, eslope) = jax.value_and_grad(plain, argnums=tuple(range(5)))(
        x, scale, bias, beside, slope
    )
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(dx, ex, atol=1e-5)
    np.testing.assert_allclose(dparams["scale"][...], escale, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dparams["bias"][...], ebias, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dbeside, ebeside, atol=1e-5)
    np.testing.assert_allclose(dslope, eslope, rtol=1e-4, atol=1e-4)
    counted = x[weight > 0].reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(moved["mean"][...], 0.9 * np.array([0.1, 0.2, 0.3]) + 0.1 * counted.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moved["var"][...], 0.9 * np.arange(1, 4) + 0.1 * counted.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("far", [0, 10, 100, 1000])  # deviations
def test_merged_variance_is_right_near_the_running_mean_and_never_cancels_far_from_it(far):
    x = random.normal(1000, 1, (8, 8, 8, 3)).astype(np.float32)
    got = moments(x, np.ones(8, bool), jnp.full(3, 1000.0 - far, jnp.float32), parts=4)
    np.testing.assert_allclose(got.mean_C, x.astype(np.float64).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(got.var_C, x.astype(np.float64).var((0, 1, 2)), rtol=min(1e-5 + 4e-7 * far**2, 0.02))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("value", [0.0, -2.551515, 107 / 3])
def test_a_channel_that_is_the_same_everywhere_is_its_bias_and_passes_no_gradient_on(batch_norm, parts, value):
    batch_norm.shares = Undivided(parts)
    x = np.full((4, 7, 5, 3), value, np.float32)
    graphdef, state = nnx.split(batch_norm)
    y, back = jax.vjp(lambda x: nnx.merge(graphdef, state, copy=True)(x, np.ones(4, np.float32), train=True), x)
    np.testing.assert_array_equal(y, np.broadcast_to(np.array([0.0, -1.0, 3.0], np.float32), y.shape))
    np.testing.assert_array_equal(back(jnp.asarray(random.normal(size=y.shape), y.dtype))[0], 0)


def test_one_value_has_no_variance_so_the_averages_stand_in_and_stay(batch_norm):
    x = random.normal(size=(3, 1, 1, 3)).astype(np.float32)
    y = batch_norm(x, np.array([0, 1, 0], np.float32), train=True)
    expected = (x - [0.1, 0.2, 0.3]) / np.sqrt(np.array([1.0, 2.0, 3.0]) + 1e-5) * [1.0, 2.0, 0.5] + [0.0, -1.0, 3.0]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_array_equal(batch_norm.mean[...], np.array([0.1, 0.2, 0.3], np.float32))
    np.testing.assert_array_equal(batch_norm.var[...], np.array([1.0, 2.0, 3.0], np.float32))


def test_stem_equals_a_three_dimensional_convolution():
    B, T, H, W, C = 2, 6, 9, 8, 3
    stem = Stem(C, rngs=nnx.Rngs(0))
    stem.bn.mean[...], stem.bn.var[...] = random.normal(size=C), random.uniform(1, 2, C)
    video = random.normal(size=(B, T, H, W)).astype(np.float32)
    convolved = jax.lax.conv_general_dilated(
        video[..., None], stem.kernel[...][..., None, :], (1, 2, 2), ((2, 2), (3, 3), (3, 3)),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )  # fmt: skip
    x = (np.asarray(convolved) - stem.bn.mean[...]) / np.sqrt(np.asarray(stem.bn.var[...]) + 1e-5)
    x = np.where(x >= 0, x, 0.25 * x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2
    pooled = np.stack(
        [padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((2, 3)) for i in range(rows) for j in range(columns)], 2
    )
    ours = stem(neighbours(video).reshape(B * T, H, W, -1), np.ones(B * T, np.float32), train=False)
    np.testing.assert_allclose(ours, pooled.reshape(B * T, rows, columns, C), atol=1e-5)


def test_layer_norm_keeps_the_dtype_and_computes_in_float32():
    layer = LayerNorm(64, rngs=nnx.Rngs(0))
    x = random.normal(100, 1, (3, 64))
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer(x.astype(np.float32)), expected, atol=1e-4)
    half = layer(jnp.asarray(expected, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(half, np.float32), expected, atol=0.02)


def test_cluster_head_is_the_cosine_over_the_temperature():
    config = tiny_model(temperature=0.07)
    head = ClusterHead(config, [5], rngs=nnx.Rngs(0))
    x = random.normal(size=(2, 3, config.width)).astype(np.float32)
    p = x @ np.asarray(head.proj.kernel[...]) + np.asarray(head.proj.bias[...])
    e = np.asarray(head.embeddings[...])
    assert (e >= 0).all()
    assert (e < 1).all()
    cosine = np.einsum("BTP,KP->BTK", p, e) / np.linalg.norm(p, axis=-1)[..., None] / np.linalg.norm(e, axis=-1)
    np.testing.assert_allclose(head(x)[0], cosine / 0.07, rtol=1e-4, atol=1e-5)
    head.proj.kernel[...], head.proj.bias[...] = jnp.zeros_like(head.proj.kernel), jnp.zeros_like(head.proj.bias)
    assert (np.asarray(head(x)[0]) == 0).all()  # a frame without direction is like no cluster, and is no NaN
    graphdef, params = nnx.split(head)
    gradient = jax.grad(lambda params: nnx.merge(graphdef, params)(x)[0].sum())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_dropout_keeps_the_mean_and_is_off_without_a_key():
    x = jnp.ones((100, 100))
    np.testing.assert_array_equal(dropout(x, 0.5, None), x)
    np.testing.assert_array_equal(dropout(x, 0.0, jax.random.key(0)), x)
    y = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert abs(y.mean() - 1) < 0.02


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0])
def test_gradient_is_scaled_and_the_value_is_not(scale):
    x = jnp.array([1.5, -2.0])
    value, gradient = jax.value_and_grad(lambda x: (scale_gradient(x, scale) ** 2).sum())(x)
    np.testing.assert_allclose(value, 6.25, rtol=1e-6)
    np.testing.assert_allclose(gradient, scale * 2 * x, rtol=1e-6)


def test_statistics_of_each_device_are_of_its_own_pictures_and_the_averages_of_the_mean(batch_norm):
    random = np.random.default_rng(1)
    x = random.normal(2, 3, (6, 4, 2, 3)).astype(np.float32)
    weight = np.array([1, 0, 1, 1, 0, 0], np.float32)  # the last of three parts counts nothing: the averages stand in
    up = random.normal(size=x.shape).astype(np.float32)
    scale, bias = np.array([1.0, 2.0, 0.5], np.float32), np.array([0.0, -1.0, 3.0], np.float32)
    batch_norm.merged, batch_norm.shares = False, Undivided(3)
    graphdef, params, stats = nnx.split(batch_norm, nnx.Param, nnx.BatchStat)

    def ours(x, params):
        layer = nnx.merge(graphdef, params, stats, copy=True)
        y = layer(x, weight, train=True)
        return (y * up).sum(), (y, nnx.state(layer, nnx.BatchStat))

    def plain(x, scale, bias):
        own = [plain_batch_norm(x[i : i + 2], weight[i : i + 2], scale, bias) for i in (0, 2)]
        blind = (x[4:] - np.array([0.1, 0.2, 0.3])) / np.sqrt(np.array([1.0, 2.0, 3.0]) + 1e-5) * scale + bias
        y = jnp.concatenate([*own, blind])
        return (y * up).sum(), y

    (_, (y, moved)), (dx, dparams) = jax.value_and_grad(ours, argnums=(0, 1), has_aux=True)(x, params)
    (_, expected), (ex, escale, ebias) = jax.value_and_grad(plain, argnums=(0, 1, 2), has_aux=True)(x, scale, bias)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(dx, ex, atol=1e-5)
    np.testing.assert_allclose(dparams["scale"][...], escale, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dparams["bias"][...], ebias, rtol=1e-4, atol=1e-4)
    parts = [x[:1].reshape(-1, 3).astype(np.float64), x[2:4].reshape(-1, 3).astype(np.float64)]
    mean, var = (
        np.mean([of(part) for part in parts], axis=0) for of in (lambda p: p.mean(0), lambda p: p.var(0, ddof=1))
    )
    np.testing.assert_allclose(moved["mean"][...], 0.9 * np.array([0.1, 0.2, 0.3]) + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(moved["var"][...], 0.9 * np.arange(1, 4) + 0.1 * var, rtol=1e-5)
