"""What heads hear beside the encoder's frames, such as the tokens of a text. Dims: B clips, L rows, E numbers a row.

What a clip does not have has no row, and no say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.models.layers import LayerNorm, linear


class Stream(NamedTuple):
    """Rows [B, L, E], of which those marked in `valid_BL` are there; a clip without any lacks the stream."""

    rows_BLE: jax.Array
    valid_BL: jax.Array

    @property
    def there_B(self) -> jax.Array:
        return self.valid_BL.any(1)


class Heard(NamedTuple):
    """beside: by name, what is heard beside the encoder. present: by modality of the encoder, bool [B]."""

    beside: Mapping[str, Stream]
    present: Mapping[str, jax.Array]

    @property
    def frames_B(self) -> jax.Array:
        """Whether a clip has anything for the encoder."""
        return jnp.stack(list(self.present.values())).any(0)


def stream_of(rows_BLE: jax.Array, present_B: jax.Array) -> Stream:
    """Of a batch: a row of zeros is none, and no row of a clip whose stream is not present is one."""
    return Stream(rows_BLE, (rows_BLE != 0).any(-1) & present_B[:, None])


class Rows(nnx.Module):
    """Every row through a norm and a linear layer, to D numbers; 0 where there is none."""

    def __init__(self, config: ModelConfig, dim: int, *, rngs: nnx.Rngs, starts_at_zero: bool = False):
        self.norm = LayerNorm(dim, rngs=rngs)
        init = nnx.initializers.zeros if starts_at_zero else None
        self.proj = linear(dim, config.width, (None, "embed"), dtype="float32", rngs=rngs, kernel_init=init)

    def __call__(self, stream: Stream) -> jax.Array:
        """float32 [B, L, D]."""
        return jnp.where(stream.valid_BL[..., None], self.proj(self.norm(stream.rows_BLE)), 0)


def mean_of(x_BSD: jax.Array, valid_BS: jax.Array) -> jax.Array:
    """[B, D]: the mean of the rows that are there; 0 where there is none."""
    weight_BS = valid_BS / jnp.maximum(valid_BS.sum(1, keepdims=True), 1)
    return (jnp.where(valid_BS[..., None], x_BSD, 0) * weight_BS[..., None]).sum(1)
