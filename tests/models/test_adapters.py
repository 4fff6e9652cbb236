"""Adapters of low rank change nothing at first, alone learn, and end as part of the matrices that they are beside."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain.models.adapters import attach, merge
from mmpretrain.models.transformer import Transformer
from tests.tiny import initial, tiny_model


def test_merged_adapters_are_products_added_to_every_layer():
    graphdef, params, _ = initial(lambda rngs: Transformer(tiny_model(), rngs=rngs))
    transformer = nnx.merge(graphdef, params)
    x, valid = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 16)), jnp.float32), jnp.ones((2, 5), bool)
    before = transformer(x, valid, None)
    attach(transformer, 3, rngs=nnx.Rngs(0))
    assert transformer.layers.attention.lora_qkv.down.shape == (2, 16, 3)
    merge(transformer)
    assert not [path for path, _ in nnx.to_flat_state(nnx.state(transformer)) if "lora" in str(path)]
    assert np.array_equal(transformer(x, valid, None), before)
    attach(transformer, 3, rngs=nnx.Rngs(0))
    out, kernel = transformer.layers.attention.lora_out, np.asarray(transformer.layers.attention.out.kernel[...])
    out.up[...] = jax.random.normal(jax.random.key(1), out.up.shape)
    expected = kernel + np.stack([out.down[k] @ out.up[k] for k in range(2)]).reshape(kernel.shape)
    merge(transformer)
    assert np.allclose(transformer.layers.attention.out.kernel[...], expected, atol=1e-5)
