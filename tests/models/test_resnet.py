"""The ResNet over pictures: what its backward pass computes again, and which frames go through it."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.models.frontends.video import VideoFrontend
from mmpretrain.models.resnet import ResNet
from tests.tiny import initial, tiny_model

random = np.random.default_rng(0)
B, T, SIDE = 2, 6, 16
VIDEO = random.normal(size=(B, T, SIDE, SIDE)).astype(np.float32)
UP = random.normal(size=(B, T, 16)).astype(np.float32)
VISIBLE = np.array([[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]], bool)
COUNTED = np.arange(T) < np.array([[6], [4]])


def resnet(**changes):
    config = dataclasses.replace(tiny_model("video", resnet_blocks=(2, 2, 2, 2)), **changes)
    return initial(lambda rngs: ResNet(config, rngs=rngs))


def gradient(**changes):
    """Of a sum over the features for the parameters, with the batch statistics afterwards; and what is kept for it."""
    graphdef, params, stats = resnet(**changes)

    def loss(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        return (model(VIDEO, COUNTED, train=True) * UP).sum(), nnx.state(model, nnx.BatchStat)

    kept = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], params)
    # Besides the weights, which are there anyway.
    num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))
    return jax.jit(jax.grad(loss, has_aux=True))(params), num_bytes - sum(x.nbytes for x in jax.tree.leaves(params))


def test_stages_have_the_blocks_that_are_named_and_the_first_of_each_widens():
    def of(blocks):
        made = nnx.eval_shape(lambda: ResNet(tiny_model("video", resnet_blocks=blocks), rngs=nnx.Rngs(0)))
        return [(block.conv1.kernel.shape[2:], block.conv1.stride, hasattr(block, "shortcut")) for block in made.blocks]

    first, second, third, fourth = ((2, 2), 1, False), ((2, 4), 2, True), ((4, 8), 2, True), ((8, 16), 2, True)
    more = {width: ((width, width), 1, False) for width in (2, 4, 8, 16)}
    assert of((1, 1, 1, 1)) == [first, second, third, fourth]
    assert of((2, 1, 3, 2)) == [first, more[2], second, third, more[8], more[8], fourth, more[16]]
    assert of((2, 2, 2, 2)) == [first, more[2], second, more[4], third, more[8], fourth, more[16]]


plain = functools.cache(gradient)


@pytest.mark.parametrize(("remat", "share"), [("blocks", 0.7), ("convolutions", 0.93)])
def test_remat_keeps_less_and_changes_neither_gradient_nor_statistics(remat, share):
    made, kept = gradient(resnet_remat=remat)
    expected, before = plain()
    for ours, theirs in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert kept < share * before


def front_end(visible_BK=None):
    """Its features in training, the gradient of a sum over those of visible frames, and the statistics afterwards."""
    config = tiny_model("video")
    graphdef, params, stats = initial(lambda rngs: VideoFrontend(config, rngs=rngs))
    counted = COUNTED & VISIBLE if visible_BK is None else COUNTED

    def loss(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        y = model(VIDEO, counted, train=True, visible_BK=visible_BK)
        return (y * UP * (COUNTED & VISIBLE)[..., None]).sum(), (y, nnx.state(model, nnx.BatchStat))

    gradient, (y, moved) = jax.jit(jax.grad(loss, has_aux=True))(params)
    return y, gradient, moved


def test_visible_frames_alone_are_as_if_statistics_were_of_them_and_the_others_are_0():
    visible_BK = np.array([[0, 1, 4, 6], [2, 3, 5, 6]], np.int32)  # 6: none; frame 5 of the second clip is padding
    assert (np.sort(np.where(VISIBLE, np.arange(T), T), axis=1)[:, :4] == visible_BK).all()
    y, gradient, moved = front_end(visible_BK)
    expected, expected_gradient, expected_moved = front_end()
    where = COUNTED & VISIBLE
    np.testing.assert_allclose(y[where], expected[where], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(y[~VISIBLE], 0)
    for tree, other in ((gradient, expected_gradient), (moved, expected_moved)):
        for ours, theirs in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
