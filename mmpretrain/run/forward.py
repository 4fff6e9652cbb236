"""The pass of an encoder or a head over a table of clips: sharded over all processes, stopped between two batches.

Whoever wants to go on later keeps what has come and asks for what is left.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain import compiler
from mmpretrain.config import ModelConfig
from mmpretrain.data.batch import Targets
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.extras import Extra
from mmpretrain.data.windows import WINDOW_FRAMES, windows
from mmpretrain.encoders.finite import finite
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.sharing import share_out
from mmpretrain.observe.progress import track
from mmpretrain.parallel.flight import one_behind
from mmpretrain.parallel.mesh import FrameShares, batch_sharding, own_rows, process_rows, replicated, shard_batch
from mmpretrain.records import Batch
from mmpretrain.run.base import RunBase


class Output(NamedTuple):
    """What came of one clip: its row in the table, its real frames, and its part of what `apply` returns.

    Values that have a dim of time have it with the padding: `values[:num_frames]` is without. A clip that cannot be
    read has 0 real frames. Of a batch of C clips: int [C], int [C] and arrays [C, ...].
    """

    row: Any
    num_frames: Any
    values: Any


@dataclasses.dataclass(frozen=True)
class Forward:
    """apply(state, batch): a pytree of arrays [B, ...], traced once a batch shape however many states it is given.

    model: whose inputs the batches have. everywhere: each process gets all rows; else those that its devices hold.
    targets: what the batches have as such. of_clips: the values are of whole clips; else they have a dim of time,
    [B, T, ...]. A clip that comes in windows has the mean of theirs, or each frame what its own window says. extras: of
    the batches, as such.
    """

    run: RunBase
    model: ModelConfig
    apply: Callable[[Any, Batch], Any]
    batch_frames: int
    everywhere: bool = False
    targets: Sequence[Targets] = ()
    of_clips: bool = False
    extras: Mapping[str, Extra] | None = None

    def __call__(self, state: Any, table: ClipTable, title: str = "") -> Iterator[Output]:
        """Every clip of the table once, unchanged. title: of a line of progress; "": none.

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
        mesh, joined = self.run.mesh, _Windows(table.lengths, self.of_clips)
        begun = (
            (planned.occurrences, self._compiled(state, shard_batch(batch, mesh)))
            for planned, batch in self.run.evaluation_batches(
                table,
                self.model,
                batch_frames=self.batch_frames,
                wanted=wanted,
                targets=self.targets,
                extras=self.extras,
            )
        )
        for window_B, made in one_behind(begun):
            values, clip_B, num_frames_B = jax.tree.map(own_rows, made)
            if not self.everywhere:
                window_B = window_B[process_rows(mesh, len(window_B))]
            whole = np.flatnonzero((clip_B >= 0) & (table.lengths[clip_B] <= WINDOW_FRAMES))
            if len(whole):
                yield Output(clip_B[whole], num_frames_B[whole], jax.tree.map(lambda x, whole=whole: x[whole], values))
            for b in np.flatnonzero((clip_B >= 0) & (table.lengths[clip_B] > WINDOW_FRAMES)):
                of_window = jax.tree.map(lambda x, b=b: x[b], values)
                yield from joined.add(int(clip_B[b]), int(window_B[b]), of_window, bool(num_frames_B[b]))

    @functools.cached_property
    def _compiled(self) -> Callable[[Any, Batch], tuple[Any, jax.Array, jax.Array]]:
        mesh = self.run.mesh
        return jax.jit(
            lambda state, batch: (self.apply(state, batch), batch.clip_B, batch.valid_BT.sum(1)),
            out_shardings=replicated(mesh) if self.everywhere else batch_sharding(mesh),
            compiler_options=compiler.for_forward(FrameShares(mesh).platform),
        )


class _Windows:
    """Puts together what came of the windows of each clip, which come one after the other."""

    def __init__(self, lengths_N: np.ndarray, of_clips: bool):
        self._lengths_N, self._of_clips = lengths_N, of_clips
        self._parts: dict[int, list[Any]] = {}

    def add(self, row: int, window: int, values: Any, read: bool) -> Iterator[Output]:
        """What came of one; the whole clip, as a batch of one, if it was the last. read: whether it could be."""
        made = windows(int(self._lengths_N[row]))
        parts = self._parts.setdefault(row, [])
        if window != len(parts):  # others were left out with their batches: the clip is not wanted
            del self._parts[row]
            return
        frames, own = made[window]
        inner = slice(own.start - frames.start, own.stop - frames.start)
        parts.append(jax.tree.map(lambda x: x * len(own) if self._of_clips else x[inner], values))
        if len(parts) == len(made):
            num_frames = np.array([made[-1].own.stop])
            join = (lambda *x: sum(x) / num_frames[0]) if self._of_clips else (lambda *x: np.concatenate(x))
            joined = jax.tree.map(lambda *x: join(*x)[None], *self._parts.pop(row))
            yield Output(np.array([row]), num_frames * read, joined)


def encode(
    run: RunBase,
    encoder: AVEncoder,
    table: ClipTable,
    apply: Callable[[AVEncoder, Batch], Any] = lambda encoder, batch: encoder(batch),
    *,
    everywhere: bool = False,
    of_clips: bool = False,
    title: str = "",
) -> Iterator[Output]:
    """`Forward` of one encoder, whole on every device. apply(encoder, batch): default its final output [B, T, D]."""
    forward, state = forward_of(run, encoder, apply, everywhere=everywhere, of_clips=of_clips)
    return forward(state, table, title)


class LayerStatistics:
    """Mean and standard deviation over its frames of every layer of an encoder, for every clip, in every process.

    Compiled once for all tables. float32 [N, L + 1, 2 D]: layer 0 is what the first layer takes, and the means come
    before the deviations. Raises ValueError naming the first clip of which one is NaN or infinite.
    """

    def __init__(self, run: RunBase, encoder: AVEncoder):
        self._layers, self._width = encoder.config.num_layers + 1, encoder.config.width
        self._forward, self._state = forward_of(run, encoder, _moments, everywhere=True, of_clips=True)
        self._run = run

    def of(self, encoder: AVEncoder) -> LayerStatistics:
        """Of the same network with other weights, by the same program."""
        other = copy.copy(self)
        other._state = _placed(self._run, nnx.split(encoder)[1], ())
        return other

    def __call__(self, table: ClipTable, title: str = "") -> np.ndarray:
        made = np.zeros((len(table), self._layers, 2 * self._width), np.float32)
        for row, _, (mean, variance, square) in self._forward(self._state, table, title):
            statistics = np.concatenate([mean, deviation(variance, square, mean)], axis=-1)
            made[row] = finite(statistics, range(self._layers), table.clip_ids[row])
        return made


def layer_statistics(run: RunBase, encoder: AVEncoder, table: ClipTable, title: str = "") -> np.ndarray:
    """`LayerStatistics` of one table."""
    return LayerStatistics(run, encoder)(table, title)


def _moments(encoder: AVEncoder, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    return moments(encoder.all_layers(encoder.embed_batch(batch), batch.valid_BT), batch.valid_BT)


def moments(layers_LBTD: jax.Array, valid_BT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, L, D] each, over the valid frames of several layers: the mean, the variance, and the mean squared."""
    layers_LBTD = layers_LBTD.astype(jnp.float32)
    weight_BT = valid_BT / jnp.maximum(valid_BT.sum(1), 1)[:, None]
    weight_LBTD = weight_BT[None, :, :, None]  # no product of matrices, which some devices would round to 16 bits
    mean_LBD = (layers_LBTD * weight_LBTD).sum(2)
    variance_LBD = (jnp.square(layers_LBTD - mean_LBD[:, :, None]) * weight_LBTD).sum(2)
    made = (mean_LBD, variance_LBD, jnp.square(mean_LBD))
    return tuple(jnp.swapaxes(x, 0, 1) for x in made)


def deviation(variance: np.ndarray, mean_square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Of all frames, from `moments` or, of a long clip, the means of its windows'. NaN or infinity where one is."""
    with np.errstate(over="ignore", invalid="ignore"):
        # `mean_square` is of the mean, so that how far the means of a long clip's windows are apart counts too.
        return np.sqrt(np.maximum(variance + (mean_square - np.square(mean)), 0))


def forward_of(
    run: RunBase, encoder: AVEncoder, apply: Callable[..., Any], *given: np.ndarray, everywhere: bool = False,
    targets: Sequence[Targets] = (), of_clips: bool = False,
) -> tuple[Forward, Any]:  # fmt: skip
    """`Forward` of one encoder, whole on every device, and the state to call it with.

    apply(encoder, batch, *given): a pytree of arrays [B, ...]; `given` are arrays that are whole on every device too.
    """
    graphdef, state = nnx.split(encoder)
    state = _placed(run, state, given)

    def of_batch(state: Any, batch: Batch) -> Any:
        weights, given = state
        shared = nnx.merge(graphdef, weights, copy=True)
        share_out(shared, FrameShares(run.mesh))
        return apply(shared, batch, *given)

    forward = Forward(run, encoder.config, of_batch, run.config.data.batch_frames, everywhere, targets, of_clips)
    return forward, state


def _placed(run: RunBase, state: nnx.State, given: tuple[np.ndarray, ...]) -> Any:
    return jax.device_put(jax.tree.map(np.asarray, (state, given)), replicated(run.mesh))
