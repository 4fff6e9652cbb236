"""The context network: layer numbers, rematerialisation, attention with and without dropout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.models.transformer import Attention, Transformer
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
