"""The ResNet over pictures: what its backward pass computes again, and which frames go through it."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.models.resnet import ResNet
from tests.tiny import initial, tiny_model

random = np.random.default_rng(0)
B, T, SIDE = 2, 6, 16
VIDEO = random.normal(size=(B, T, SIDE, SIDE)).astype(np.float32)
UP = random.normal(size=(B, T, 16)).astype(np.float32)
COUNTED = np.arange(T) < np.array([[6], [4]])


def resnet(**changes):
    config = dataclasses.replace(tiny_model("video"), **changes)
    return initial(lambda rngs: ResNet(config, rngs=rngs))


def gradient(**changes):
    """Of a sum over the features for the parameters, with the batch statistics afterwards; and what is kept for it."""
    graphdef, params, stats = resnet(**changes)

    def loss(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        return (model(VIDEO, COUNTED, train=True) * UP).sum(), nnx.state(model, nnx.BatchStat)

    kept = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], params)
    return jax.jit(jax.grad(loss, has_aux=True))(params), sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))


plain = functools.cache(gradient)


@pytest.mark.parametrize(("remat", "share"), [("blocks", 0.5), ("convolutions", 0.7)])
def test_remat_keeps_less_and_changes_neither_gradient_nor_statistics(remat, share):
    made, kept = gradient(resnet_remat=remat)
    expected, before = plain()
    for ours, theirs in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert kept < share * before
