"""The context network: layer numbers, rematerialisation, attention with and without dropout."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.models.sharing import Undivided
from mmpretrain.models.transformer import Attention, Transformer, attend, attend_dropping
from mmpretrain.randomness import named, numbered
from tests.slow import others_slow
from tests.tiny import initial, tiny_model

B, T = 2, 7
VALID = np.arange(T) < np.array([[7], [4]])
X = np.random.default_rng(0).normal(size=(B, T, 16)).astype(np.float32)
CONFIG = tiny_model(num_layers=3)


def transformer(config=CONFIG):
    graphdef, params, _ = initial(lambda rngs: Transformer(config, rngs=rngs))
    return graphdef, params


def test_every_layer_can_be_asked_for_by_number():
    graphdef, params = transformer()

    @jax.jit
    def run(params):
        model = nnx.merge(graphdef, params)
        stops = [model(X, VALID, None, layer=layer) for layer in range(4)]
        return model.all_layers(X, VALID, None), stops, model(X, VALID, None), model.norm(stops[-1])

    layers, stops, last, normed = run(params)
    assert layers.shape == (4, B, T, 16)
    for layer, stop in enumerate(stops):
        np.testing.assert_allclose(stop, layers[layer], atol=1e-6, err_msg=f"layer {layer}")
    np.testing.assert_allclose(last, normed, atol=1e-6)
    assert np.abs(np.diff(layers, axis=0)).max((1, 2, 3)).min() > 1e-3  # layers do something, each its own


def test_layers_have_their_own_weights_in_order():
    graphdef, params = transformer()
    x_BTD, expected = X * VALID[..., None], []

    @jax.jit
    def by_hand(params):
        model = nnx.merge(graphdef, params)
        layer_def, stacked = nnx.split(model.layers)
        x = x_BTD + model.position(x_BTD)
        for i in range(3):
            x = nnx.merge(layer_def, jax.tree.map(lambda p, i=i: p[i], stacked))(x, VALID, None)
            expected.append(x)
        return x, model(X, VALID, None, layer=3)

    np.testing.assert_allclose(*by_hand(params), atol=1e-5)


def test_remat_changes_memory_and_not_the_gradient():
    config = dataclasses.replace(CONFIG, num_layers=2, dropout=0.1, layerdrop=0.3)
    gradients = {}
    for remat in ("none", "layers", "dots"):
        graphdef, params = transformer(dataclasses.replace(config, remat=remat))

        def loss(params, graphdef=graphdef):
            return jnp.square(nnx.merge(graphdef, params)(X, VALID, jax.random.key(1))).sum()

        gradients[remat] = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    for remat in ("layers", "dots"):
        for ours, plain in zip(gradients[remat], gradients["none"], strict=True):
            np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=1e-4)


def test_attention_with_dropout_of_almost_nothing_equals_the_fused_one():
    attention = Attention(tiny_model(attention_dropout=1e-7), rngs=nnx.Rngs(0))
    # Weights of the start hardly prefer any frame.
    attention.qkv.kernel[...] *= 50.0
    with_dropout = attention(X, VALID, jax.random.key(0))
    np.testing.assert_allclose(with_dropout, attention(X, VALID, None), rtol=1e-4, atol=1e-5)


def test_rollout_is_the_product_of_what_layers_attend_to():
    graphdef, params = transformer()

    @jax.jit
    def run(params):
        model = nnx.merge(graphdef, params)
        layers, layer_def, stacked = model.all_layers(X, VALID, None), *nnx.split(model.layers)
        rolled_BTS = jnp.broadcast_to(jnp.eye(T), (B, T, T))
        for i in range(3):
            layer = nnx.merge(layer_def, jax.tree.map(lambda p, i=i: p[i], stacked))
            x = layer.attention_norm(layers[i])
            weights = layer.attention.weights(x, VALID)
            q_k_v = jnp.moveaxis(layer.attention.qkv(x), 2, 0)
            attended = layer.attention.out(jnp.einsum("BHTS,BSHK->BTHK", weights, q_k_v[2]))
            rolled_BTS = (0.5 * weights.mean(1) + 0.5 * jnp.eye(T)) @ rolled_BTS
        return model.rollout(X, VALID), rolled_BTS, attended, layer.attention(x, VALID, None)

    rolled, by_hand, attended, expected = run(params)
    np.testing.assert_allclose(rolled, by_hand, atol=1e-6)
    np.testing.assert_allclose(rolled.sum(-1), 1, atol=1e-5)
    assert np.abs(rolled[1, :4, 4:]).max() == 0, "nothing of padding goes into real frames"
    np.testing.assert_allclose(attended[VALID], expected[VALID], atol=1e-5)


def test_attention_equals_a_slow_writing_and_does_not_look_at_padding():
    attention = Attention(tiny_model(), rngs=nnx.Rngs(0))
    attention.qkv.kernel[...] *= 50.0
    kernel, bias = (np.asarray(p[...], np.float64) for p in (attention.qkv.kernel, attention.qkv.bias))
    expected = np.zeros((B, T, 2, 8))
    for b in range(B):
        q, k, v = np.moveaxis(np.einsum("TD,DnHK->TnHK", X[b], kernel) + bias, 1, 0)
        for head in range(2):
            scores = q[:, head] @ k[VALID[b], head].T / np.sqrt(8)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            expected[b, :, head] = weights / weights.sum(-1, keepdims=True) @ v[VALID[b], head]
    out, out_bias = (np.asarray(p[...]) for p in (attention.out.kernel, attention.out.bias))
    expected = np.einsum("BTHK,HKD->BTD", expected, out) + out_bias
    np.testing.assert_allclose(attention(X, VALID, None), expected, atol=1e-5)


@pytest.mark.parametrize("layerdrop", [0.0, 1.0])
def test_layerdrop_skips_layers_in_training_only(layerdrop):
    graphdef, params = transformer(dataclasses.replace(CONFIG, layerdrop=layerdrop))

    @jax.jit
    def run(params):
        model = nnx.merge(graphdef, params)
        return model.all_layers(X, VALID, jax.random.key(0)), model.all_layers(X, VALID, None)

    train, evaluation = run(params)
    assert (np.ptp(np.asarray(train), axis=0).max() == 0) == (layerdrop == 1.0)
    assert np.ptp(np.asarray(evaluation), axis=0).max() > 1e-3


def test_dropout_differs_by_layer_and_key():
    graphdef, params = transformer(dataclasses.replace(CONFIG, dropout=0.5))
    run = jax.jit(lambda params, key: nnx.merge(graphdef, params)(X, VALID, key))
    one, same, other = (run(params, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("remat", others_slow(["none", "layers", "dots"], "none"))
def test_a_dropped_layer_is_not_run_and_the_numbers_are_those_of_running_it_for_nothing(remat):
    config = dataclasses.replace(CONFIG, num_layers=4, dropout=0.1, layerdrop=0.5, remat=remat)
    graphdef, params = transformer(config)
    key = jax.random.key(3)
    kept = [
        bool(jax.random.uniform(named(numbered(named(key, "layers"), i), "layerdrop")) >= config.layerdrop)
        for i in range(config.num_layers)
    ]
    assert len(set(kept)) == 2

    def compiled(platform):
        def loss(params):
            model = nnx.merge(graphdef, params)
            model.shares = Undivided(platform=platform)
            y = model(X, VALID, key)
            return jnp.square(y).sum(), y

        return jax.jit(lambda params: jax.grad(loss, has_aux=True)(params)).lower(params).compile()

    skipping, running_all = compiled("cpu"), compiled("gpu")
    assert skipping.as_text().count(" conditional(") >= 2, "forward and backward"
    grads, y = skipping(params)
    for of_layer, was_kept in zip(np.asarray(grads["layers"]["mlp_in"]["kernel"][...]), kept, strict=True):
        assert (np.abs(of_layer).max() > 0) == was_kept

    assert " conditional(" not in running_all.as_text(), "on a GPU a branch costs more than the layer"
    for ours, of_all in zip(jax.tree.leaves((grads, y)), jax.tree.leaves(running_all(params)), strict=True):
        np.testing.assert_allclose(ours, of_all, rtol=1e-5, atol=1e-6 * np.abs(of_all).max())


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_attention_with_dropout_has_the_gradient_that_jax_derives(dtype, error):
    keys = jax.random.split(jax.random.key(0), 5)
    q, k, v, dy = (jax.random.normal(key, (B, T, 3, 8), dtype) for key in keys[:4])
    keep = jax.random.bernoulli(keys[4], 0.7, (B, 3, T, T))

    def plain(q, k, v):
        logits = jnp.einsum("BTHK,BSHK->BHTS", q, k) / math.sqrt(8)
        probs = jax.nn.softmax(jnp.where(VALID[:, None, None], logits, -jnp.inf), axis=-1)
        return jnp.einsum("BHTS,BSHK->BTHK", jnp.where(keep, probs / 0.7, 0), v)

    y, back = jax.vjp(lambda q, k, v: attend_dropping(q, k, v, VALID, keep, 0.3), q, k, v)
    expected, plain_back = jax.vjp(plain, *(x.astype(jnp.float32) for x in (q, k, v)))
    assert y.dtype == dtype
    for ours, theirs in zip((y, *back(dy)), (expected, *plain_back(dy.astype(jnp.float32))), strict=True):
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, rtol=0, atol=error * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("dtype", "frames", "head_dim", "fused"),
    [("bfloat16", 6, 8, True), ("float32", 6, 8, False), ("bfloat16", 7, 8, False), ("bfloat16", 6, 4, False)],
)
def test_on_cuda_attention_in_16_bits_is_the_fused_kernel_that_reads_lengths(
    monkeypatch, dtype, frames, head_dim, fused
):
    # What is lowered for cuDNN needs no GPU.
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91200)
    x, valid = jax.ShapeDtypeStruct((B, frames, 2, head_dim), dtype), jnp.arange(frames) < jnp.array([[frames], [4]])

    def lowered(platform: str) -> str:
        step = jax.jit(jax.grad(lambda *qkv: attend(*qkv, valid, platform).astype("float32").sum(), argnums=(0, 1, 2)))
        return step.trace(x, x, x).lower(lowering_platforms=("cuda" if platform == "gpu" else platform,)).as_text()

    on_gpu = lowered("gpu")
    for kernel in ("__cudnn$fmhaSoftmax(", "__cudnn$fmhaSoftmaxBackward("):
        assert (kernel in on_gpu) == fused
    assert ("stablehlo.exponential" in on_gpu) != fused, "the softmax is the kernel's"
    for other in ("cpu", "tpu"):
        assert "stablehlo.exponential" in lowered(other)
        assert "fmha" not in lowered(other)
