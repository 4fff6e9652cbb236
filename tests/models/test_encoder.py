"""The whole encoder: padding, absent modalities, layer numbers, precision, gradients into the front-ends."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.frontends.video import normalize_pixels
from tests.tiny import initial, padded, random_batch, rows, tiny_model, with_inputs, with_present

BOTH = tiny_model("audio", "video")


class Features:
    """features(batch, layer=None) of a random encoder, compiled."""

    def __init__(self, config):
        self.config = config
        graphdef, self.params, stats = initial(lambda rngs: AVEncoder(config, rngs=rngs))

        @functools.partial(jax.jit, static_argnums=2)
        def run(params, batch, layer):
            return nnx.merge(graphdef, params, stats)(batch, layer=layer)

        self.run = run

    def __call__(self, batch, layer=None):
        return np.asarray(self.run(self.params, batch, layer))


encoder_of = functools.cache(lambda *modalities, **changes: Features(tiny_model(*modalities, **changes)))


@pytest.mark.parametrize("modalities", [("audio",), ("video",), ("audio", "video")])
def test_padding_and_neighbours_change_no_feature(modalities):
    features = encoder_of(*modalities)
    batch = random_batch((11, 6), model=features.config)
    together = features(padded(batch, 4))
    assert together.shape == (2, 15, 16)
    for i, length in enumerate((11, 6)):
        alone = rows(batch, [i])
        inputs = {name: x[:, :length] for name, x in alone.inputs.items()}
        cut = alone._replace(inputs=inputs, valid_BT=alone.valid_BT[:, :length])
        np.testing.assert_allclose(together[i, :length], features(cut)[0], atol=2e-5)


def test_layers_by_number():
    features = encoder_of("audio")
    batch = random_batch((9,), model=features.config)
    graphdef, _, stats = initial(lambda rngs: AVEncoder(features.config, rngs=rngs))

    @jax.jit
    def all_layers(params):
        model = nnx.merge(graphdef, params, stats)
        x = model.embed_batch(batch)
        return x, model.all_layers(x, batch.valid_BT)

    x, layers = all_layers(features.params)
    np.testing.assert_allclose(features(batch, 0), x, atol=1e-6)
    for layer in (1, 2):
        np.testing.assert_allclose(features(batch, layer), layers[layer], atol=1e-6)
    assert np.abs(features(batch) - layers[2]).max() > 1e-3  # the final norm


@pytest.mark.parametrize("fusion", ["concat", "add"])
@pytest.mark.parametrize("absent", ["audio", "video"])
def test_an_absent_modality_is_not_looked_at(fusion, absent):
    features = encoder_of("audio", "video", fusion=fusion)
    batch = random_batch((8, 8), model=features.config)
    lacking = with_present(batch, **{absent: [False, True]})
    other = with_inputs(lacking, **{absent: batch.inputs[absent][::-1].copy()})
    np.testing.assert_array_equal(features(other)[0], features(lacking)[0])
    assert np.abs(features(other)[1] - features(lacking)[1]).max() > 1e-4
    assert np.abs(features(batch)[0] - features(lacking)[0]).max() > 1e-3


def test_addition_needs_no_projection():
    assert not hasattr(nnx.eval_shape(lambda: AVEncoder(tiny_model(fusion="add"), rngs=nnx.Rngs(0))).fusion, "proj")


def test_pixels_are_normalised_and_padding_is_zero():
    valid_BT = np.array([[True, True, False]])
    pixels = np.array([0, 107, 255], np.uint8)[None, :, None, None]
    expected = np.array([(0 - 0.421) / 0.165, (107 / 255 - 0.421) / 0.165, 0])
    np.testing.assert_allclose(normalize_pixels(pixels, valid_BT, BOTH.inputs).ravel(), expected, rtol=1e-6)


def test_bfloat16_stays_near_float32():
    features = encoder_of("audio", "video")
    half = Features(dataclasses.replace(features.config, dtype="bfloat16"))
    assert {p.dtype for p in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    batch = random_batch((9, 5), model=features.config)
    ours, exact = half(batch), features(batch)
    assert ours.dtype == jnp.bfloat16
    error = np.abs(ours.astype(np.float32) - exact)[batch.valid_BT]
    assert error.max() < 0.1
    assert error.mean() < 0.02


def test_gradient_into_the_front_ends_is_scaled_and_nothing_else_is():
    batch = random_batch((6, 4), model=BOTH)

    def gradient(scale):
        config = tiny_model("audio", "video", feature_grad_scale=scale, num_layers=1)
        graphdef, params, stats = initial(lambda rngs: AVEncoder(config, rngs=rngs))
        # All but the ResNet, whose backward pass takes long to compile.
        network, rest = nnx.split_state(params, lambda path, _: "resnet" in path, ...)

        def loss(rest):
            # Not the sum of squares, which the final norm holds constant.
            return (nnx.merge(graphdef, nnx.merge_state(rest, network), stats)(batch) ** 3).sum()

        return dict(nnx.to_flat_state(jax.jit(jax.grad(loss))(rest)))

    whole, tenth = gradient(1.0), gradient(0.1)
    for name in whole:
        scale, ours, plain = 0.1 if "frontends" in name else 1.0, tenth[name][...], whole[name][...]
        size = np.abs(plain).max()
        np.testing.assert_allclose(ours, scale * plain, rtol=1e-3, atol=1e-4 * size, err_msg=str(name))
        assert size > 0


def test_training_statistics_are_of_valid_pictures_only():
    batch = random_batch((6, 4), model=BOTH)
    graphdef, params, stats = initial(lambda rngs: AVEncoder(BOTH, rngs=rngs))

    @jax.jit
    def statistics(batch):
        model = nnx.merge(graphdef, params, stats, copy=True)
        model.embed(model.prepare(batch.inputs, batch.valid_BT), batch.valid_BT, batch.present, train=True)
        return nnx.state(model, nnx.BatchStat)

    before = statistics(batch)
    other = batch.inputs["video"].copy()
    other[~batch.valid_BT] = 255
    only_first = with_present(batch, video=[True, False])
    other_second = with_inputs(only_first, video=np.concatenate([batch.inputs["video"][:1], other[1:] // 2]))
    for one, same in ((before, statistics(with_inputs(batch, video=other))),
                      (statistics(only_first), statistics(other_second))):  # fmt: skip
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(stats), strict=True))
