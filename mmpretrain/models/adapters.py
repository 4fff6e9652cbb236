"""LoRA (Hu et al. 2021): a product of two thin matrices beside each matrix of a transformer's layers.

Dims: L layers, I and O dims that a matrix takes and gives, R rank.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.models.transformer import Transformer


class LowRank(nnx.Module):
    """The kernels of one matrix of all L layers, to be added to it: down @ up, which is 0 at first.

    shape: [L, ...] of the kernel. inputs: how many of its dims behind the first are what it takes.
    """

    def __init__(self, shape: tuple[int, ...], inputs: int, rank: int, *, rngs: nnx.Rngs):
        d_in, d_out = math.prod(shape[1 : 1 + inputs]), math.prod(shape[1 + inputs :])
        down = jax.random.normal(rngs.params(), (shape[0], d_in, rank)) / math.sqrt(rank)
        self.down = nnx.Param(down, axes=(None, None, None))
        self.up = nnx.Param(jnp.zeros((shape[0], rank, d_out)), axes=(None, None, None))


def attach(transformer: Transformer, rank: int, *, rngs: nnx.Rngs) -> None:
    """Gives every layer adapters, which change nothing yet."""
    for module, name, inputs in _matrices(transformer):
        setattr(module, f"lora_{name}", LowRank(getattr(module, name).kernel.shape, inputs, rank, rngs=rngs))


def merge(transformer: Transformer) -> None:
    """Adds what the adapters came to, if there are any, to the matrices that they are beside, and removes them."""
    for module, name, _ in _matrices(transformer):
        if (adapter := getattr(module, f"lora_{name}", None)) is not None:
            kernel = getattr(module, name).kernel
            product = jnp.einsum("LIR,LRO->LIO", adapter.down[...], adapter.up[...])
            kernel[...] = kernel[...] + product.reshape(kernel.shape)
            delattr(module, f"lora_{name}")


def _matrices(transformer: Transformer) -> list[tuple[nnx.Module, str, int]]:
    """The module, name and number of dims taken of each matrix."""
    layers = transformer.layers
    attention = [(layers.attention, "qkv", 1), (layers.attention, "out", 2)]
    return [*attention, (layers, "mlp_in", 1), (layers, "mlp_out", 1)]
