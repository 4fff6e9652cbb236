"""The pass of an encoder or a head over a table of clips: sharded over all processes, stopped between two batches.

Whoever wants to go on later keeps what has come and asks for the rows that are left.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.progress import track
from mmpretrain.parallel.mesh import batch_sharding, own_rows, replicated, shard_batch
from mmpretrain.records import Batch
from mmpretrain.run.base import RunBase


class Output(NamedTuple):
    """What came of one clip: its row in the table, its real frames, and its part of what `apply` returns.

    Values that have a dim of time have it with the padding: `values[:num_frames]` is without.
    """

    row: int
    num_frames: int
    values: Any


@dataclasses.dataclass(frozen=True)
class Forward:
    """apply(state, batch): a pytree of arrays [B, ...], traced once a batch shape however many states it is given.

    model: whose inputs the batches have. everywhere: each process gets all rows; else those that its devices hold.
    """

    run: RunBase
    model: ModelConfig
    apply: Callable[[Any, Batch], Any]
    batch_frames: int
    everywhere: bool = False

    def __call__(self, state: Any, table: ClipTable, title: str = "") -> Iterator[Output]:
        """Every clip of the table once, whole and unchanged. title: of a line of progress; "": none.

        All processes take part. Raises Stopped between two batches if the run was asked to stop.
        """
        share = 1 if self.everywhere else jax.process_count()
        outputs = self._outputs(state, table)
        return track(outputs, title, -(-len(table) // share), "clip") if title else outputs

    def _outputs(self, state: Any, table: ClipTable) -> Iterator[Output]:
        for batch in self.run.evaluation_batches(table, self.model, batch_frames=self.batch_frames):
            made = self._compiled(state, shard_batch(batch, self.run.mesh))
            values, clip_B, num_frames_B = jax.tree.map(own_rows, made)
            for b in np.flatnonzero(clip_B >= 0):
                yield Output(int(clip_B[b]), int(num_frames_B[b]), jax.tree.map(lambda x, b=b: x[b], values))

    @functools.cached_property
    def _compiled(self) -> Callable[[Any, Batch], tuple[Any, jax.Array, jax.Array]]:
        mesh = self.run.mesh
        return jax.jit(
            lambda state, batch: (self.apply(state, batch), batch.clip_B, batch.valid_BT.sum(1)),
            out_shardings=replicated(mesh) if self.everywhere else batch_sharding(mesh),
        )


def encode(
    run: RunBase,
    encoder: AVEncoder,
    table: ClipTable,
    apply: Callable[[AVEncoder, Batch], Any] = lambda encoder, batch: encoder(batch),
    *,
    everywhere: bool = False,
    title: str = "",
) -> Iterator[Output]:
    """`Forward` of one encoder, whole on every device. apply(encoder, batch): default its final output [B, T, D]."""
    graphdef, state = nnx.split(encoder)
    state = jax.device_put(jax.tree.map(np.asarray, state), replicated(run.mesh))
    forward = Forward(
        run, encoder.config, lambda state, batch: apply(nnx.merge(graphdef, state, copy=True), batch),
        run.config.data.batch_frames, everywhere,
    )  # fmt: skip
    return forward(state, table, title)
