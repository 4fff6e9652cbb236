"""The pass of an encoder or a head over a table of clips: sharded over all processes, stopped between two batches.

Whoever wants to go on later keeps what has come and asks for what is left.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.data.batch import Targets
from mmpretrain.data.clips import ClipTable
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.progress import track
from mmpretrain.parallel.flight import one_behind
from mmpretrain.parallel.mesh import batch_sharding, own_rows, replicated, shard_batch
from mmpretrain.records import Batch
from mmpretrain.run.base import RunBase


class Output(NamedTuple):
    """What came of one clip: its row in the table, its real frames, and its part of what `apply` returns.

    Values that have a dim of time have it with the padding: `values[:num_frames]` is without. Of a batch of C clips:
    int [C], int [C] and arrays [C, ...].
    """

    row: Any
    num_frames: Any
    values: Any


@dataclasses.dataclass(frozen=True)
class Forward:
    """apply(state, batch): a pytree of arrays [B, ...], traced once a batch shape however many states it is given.

    model: whose inputs the batches have. everywhere: each process gets all rows; else those that its devices hold.
    targets: what the batches have as such.
    """

    run: RunBase
    model: ModelConfig
    apply: Callable[[Any, Batch], Any]
    batch_frames: int
    everywhere: bool = False
    targets: Sequence[Targets] = ()

    def __call__(self, state: Any, table: ClipTable, title: str = "") -> Iterator[Output]:
        """Every clip of the table once, whole and unchanged. title: of a line of progress; "": none.

        All processes take part. Raises Stopped between two batches if the run was asked to stop.
        """
        share = 1 if self.everywhere else jax.process_count()
        outputs = (
            Output(int(rows[c]), int(num_frames[c]), jax.tree.map(lambda x, c=c: x[c], values))
            for rows, num_frames, values in self.batches(state, table)
            for c in range(len(rows))
        )
        return track(outputs, title, -(-len(table) // share), "clip") if title else outputs

    def batches(self, state: Any, table: ClipTable, wanted: np.ndarray | None = None) -> Iterator[Output]:
        """The same by batches. wanted: bool [N], the clips to be among them; batches with none of these are left out.

        A batch is the same however many are left out, and so is what comes of its clips, bit for bit. While one is
        looked at the devices work on the next.
        """
        batches = self.run.evaluation_batches(
            table, self.model, batch_frames=self.batch_frames, wanted=wanted, targets=self.targets
        )
        for made in one_behind(self._compiled(state, shard_batch(batch, self.run.mesh)) for batch in batches):
            values, clip_B, num_frames_B = jax.tree.map(own_rows, made)
            real = clip_B >= 0
            yield Output(clip_B[real], num_frames_B[real], jax.tree.map(lambda x, real=real: x[real], values))

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
    forward, state = forward_of(run, encoder, apply, everywhere=everywhere)
    return forward(state, table, title)


def forward_of(
    run: RunBase, encoder: AVEncoder, apply: Callable[..., Any], *given: np.ndarray, everywhere: bool = False,
    targets: Sequence[Targets] = (),
) -> tuple[Forward, Any]:  # fmt: skip
    """`Forward` of one encoder, whole on every device, and the state to call it with.

    apply(encoder, batch, *given): a pytree of arrays [B, ...]; `given` are arrays that are whole on every device too.
    """
    graphdef, state = nnx.split(encoder)
    state = jax.device_put(jax.tree.map(np.asarray, (state, given)), replicated(run.mesh))

    def of_batch(state: Any, batch: Batch) -> Any:
        weights, given = state
        return apply(nnx.merge(graphdef, weights, copy=True), batch, *given)

    return Forward(run, encoder.config, of_batch, run.config.data.batch_frames, everywhere, targets), state
