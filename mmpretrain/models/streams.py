"""What heads hear beside the encoder's frames, such as the tokens of a text, or hands in every frame.

Dims: B clips, L rows, E numbers a row, D width, H width of movements. What a clip does not have has no row, and no say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.models.layers import LayerNorm, linear

MOVEMENT_DIM, MOVEMENT_BLOCKS, MOVEMENT_REACH = 128, 2, 2  # width; convolutions, of 5 frames each: 0.36 s in all


class Beside(NamedTuple):
    """What is heard beside the encoder, by its name: how many numbers a row has, and whether each frame has one."""

    name: str
    dim: int
    of_frames: bool = False


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


class Movement(nnx.Module):
    """What moves from frame to frame, to D numbers a frame: each row with its change since the one before, through a
    norm, a linear layer and convolutions over time, each added to what it is given; 0 where there is none."""

    def __init__(self, config: ModelConfig, dim: int, *, rngs: nnx.Rngs, starts_at_zero: bool = False):
        H, taps = min(config.width, MOVEMENT_DIM), 2 * MOVEMENT_REACH + 1
        self.norm, self.proj = (
            LayerNorm(2 * dim, rngs=rngs),
            linear(2 * dim, H, (None, None), dtype="float32", rngs=rngs),
        )
        blocks = [str(block) for block in range(MOVEMENT_BLOCKS)]
        self.norms = nnx.Dict({block: LayerNorm(H, rngs=rngs) for block in blocks})
        self.over_time = nnx.Dict(
            {block: linear(taps * H, H, (None, None), dtype="float32", rngs=rngs) for block in blocks}
        )
        init = nnx.initializers.zeros if starts_at_zero else None
        self.out = linear(H, config.width, (None, "embed"), dtype="float32", rngs=rngs, kernel_init=init)

    def __call__(self, stream: Stream) -> jax.Array:
        """float32 [B, L, D]. Of a row whose neighbour is not there, nothing is known of the change."""
        rows_BLE, there_BL1 = stream.rows_BLE, stream.valid_BL[..., None]
        change_BLE = jnp.where(there_BL1 & _moved(there_BL1, 1), rows_BLE - _moved(rows_BLE, 1), 0)
        x_BLH = jnp.where(there_BL1, self.proj(self.norm(jnp.concatenate([rows_BLE, change_BLE], axis=-1))), 0)
        for block, convolution in self.over_time.items():
            normed_BLH = jnp.where(there_BL1, self.norms[block](x_BLH), 0)
            around = [_moved(normed_BLH, by) for by in range(-MOVEMENT_REACH, MOVEMENT_REACH + 1)]
            x_BLH = jnp.where(there_BL1, x_BLH + jax.nn.gelu(convolution(jnp.concatenate(around, axis=-1))), 0)
        return jnp.where(there_BL1, self.out(x_BLH), 0)


def _moved(x_BLE: jax.Array, by: int) -> jax.Array:
    """In place of each row the one `by` rows before it, or after it; 0 beyond the ends."""
    L = x_BLE.shape[1]
    padded = jnp.pad(x_BLE, ((0, 0), (max(by, 0), max(-by, 0)), (0, 0)))
    return padded[:, :L] if by >= 0 else padded[:, -by:]


def rows_of(config: ModelConfig, beside: Iterable[Beside], *, rngs: nnx.Rngs, starts_at_zero: bool = False) -> nnx.Dict:
    """By the name of each stream, the module that makes D numbers of its rows."""
    return nnx.Dict({
        name: (Movement if of_frames else Rows)(config, dim, rngs=rngs, starts_at_zero=starts_at_zero)
        for name, dim, of_frames in beside
    })  # fmt: skip


def mean_of(x_BSD: jax.Array, valid_BS: jax.Array) -> jax.Array:
    """[B, D]: the mean of the rows that are there; 0 where there is none."""
    weight_BS = valid_BS / jnp.maximum(valid_BS.sum(1, keepdims=True), 1)
    return (jnp.where(valid_BS[..., None], x_BSD, 0) * weight_BS[..., None]).sum(1)
