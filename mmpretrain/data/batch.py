"""From a planned batch to its arrays: loads the clips, makes their inputs, and pads them.

Everything drawn for a clip depends on the seed, the epoch, the clip's id and how often it came before in the epoch.
Dims: B clips, T frames.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mmpretrain.config import DataConfig, ModelConfig
from mmpretrain.data.batch_plan import PlannedBatch
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.extras import Extra
from mmpretrain.data.inputs import INPUTS, Augmentation
from mmpretrain.data.noise import noise_files
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.data.windows import windows
from mmpretrain.randomness import clip_generator, clip_number
from mmpretrain.records import Batch, Clip


class Targets(Protocol):
    """What is to be predicted of every frame of the clips of a table, such as cluster ids under one codebook."""

    def of(self, row: int, clip: Clip) -> np.ndarray | None:
        """int32, one or more a frame, of the clip of this row of the table; None if it has none."""


class TrueUnits:
    """The true unit of every frame of a clip, where it is known."""

    def of(self, row: int, clip: Clip) -> np.ndarray | None:
        return clip.tracks.get("units")


def make_batch(
    planned: PlannedBatch,
    table: ClipTable,
    *,
    model: ModelConfig,
    data: DataConfig,
    train: bool,
    seed: int,
    targets: Sequence[Targets] = (),
    targets_per_frame: int = 1,
    labels: Mapping[str, np.ndarray] | None = None,
    of_frames: Collection[str] = (),
    freq_mask: int = 0,
    freq_warp: float = 0.0,
    extras: Mapping[str, Extra] | None = None,
) -> Batch:
    """The batch of `planned` in numpy: zeros, False and -1 where there is no frame, no modality or no clip.

    In training (`train`) each clip has its own random stretch of time, where it is longer than the batch, and what
    `Augmentation` says is changed; otherwise it is whole, or one of its `windows`, and unchanged. All inputs and
    targets of a clip begin at the same frame; of a window only the frames that it owns have targets, and the first
    alone has the labels of the clip, which so counts once. targets: of each codebook; a clip may have none.
    targets_per_frame: of these a frame takes the first. labels: by task, [N, ...] over the table. of_frames: those of
    them whose second dim is the frames of the clip, [N, T, ...]. extras: by name inputs beside the modalities of the
    model, such as a text: [B, L, D], 0 where a clip has fewer rows. A clip that has no frames, such as one of text
    alone, is a frame of nothing.

    A clip that cannot be read is a row without frames, labels and modalities, the same each time: it has no part in a
    loss. Raises ValueError if these are too many (`ClipTable.unreadable`), or if the targets of a clip have another
    length.
    """
    if train and data.noise.prob > 0:
        noise_files(data.noise.path)  # speaks up at the first batch if there is no noise, not at the first noisy clip
    batch = empty_batch(
        len(planned.clips), planned.num_frames, model, num_codebooks=len(targets), labels=labels, of_frames=of_frames,
        extras=extras,
    )  # fmt: skip
    batch.clip_B[:] = planned.clips

    def put(b: int, row: int, occurrence: int) -> None:
        clip = table.open(row)
        batch.chance_B[b] = clip_number(clip.clip_id, occurrence)
        stream = functools.partial(
            clip_generator, seed, epoch=planned.epoch, clip_id=clip.clip_id, occurrence=occurrence
        )
        if train:
            length = min(clip.num_frames, planned.num_frames)
            spare = clip.num_frames - length
            start = int(stream("time").integers(0, spare, endpoint=True)) if spare else 0
            frames = own = range(start, start + length)
        else:
            frames, own = windows(clip.num_frames)[occurrence]
            # No plan of ours is shorter than what it holds; the reference's is, and takes the beginning.
            frames = frames[: planned.num_frames]
            own = range(own.start, min(own.stop, frames.stop))
        augmentation = Augmentation(data, stream, freq_mask, freq_warp) if train else None
        present = [name for name in model.modalities if table.has(INPUTS[name].needs)[row]]
        put_clip(batch, b, clip, frames or range(1), present, model, augmentation)
        for name, features in (extras or {}).items():
            rows_LD = features.rows(clip, frames)
            batch.present[name][b] = rows_LD.any()
            batch.inputs[name][b, : len(rows_LD)] = rows_LD
        for s, store in enumerate(targets):
            ids_T = store.of(row, clip)
            if ids_T is not None:
                ids_T = _of_frames(ids_T, clip, targets_per_frame)[own.start : own.stop]
                first = own.start - frames.start
                batch.targets_BTS[b, first : first + len(ids_T), s] = ids_T
        for name, of_table in (labels or {}).items():
            if name in of_frames:
                batch.labels[name][b, : len(frames)] = of_table[row, frames.start : frames.stop]
            elif train or occurrence == 0:
                batch.labels[name][b] = of_table[row]

    for b, (row, occurrence) in enumerate(zip(planned.clips, planned.occurrences.tolist(), strict=True)):
        if row < 0:
            continue
        try:
            put(b, row, occurrence)
        except UnreadableClipError as error:
            table.unreadable.add(error)
            _clear(batch, b)
    return batch


def make_share(planned: PlannedBatch, table: ClipTable, *, rows_of: Mapping[int, np.ndarray], **how: Any) -> Batch:
    """`make_batch` of those rows of a planned batch that one process makes. rows_of: by how many clips are planned."""
    return make_batch(planned.take(rows_of[len(planned.clips)]), table, **how)


def empty_batch(
    num_clips: int,
    num_frames: int,
    model: ModelConfig,
    *,
    num_codebooks: int = 0,
    labels: Mapping[str, np.ndarray] | None = None,
    of_frames: Collection[str] = (),
    extras: Mapping[str, Extra] | None = None,
) -> Batch:
    """A batch without a clip: to put some in, or for its shapes. labels: arrays whose dtype and trailing dims count.

    of_frames: those that have a dim of time.
    """

    def no_label(name: str, like: np.ndarray) -> np.ndarray:
        dims = (num_frames, *like.shape[2:]) if name in of_frames else like.shape[1:]
        return np.full((num_clips, *dims), np.nan if np.issubdtype(like.dtype, np.floating) else -1, like.dtype)

    shapes = {name: (INPUTS[name].frame_shape(model.inputs), INPUTS[name].dtype) for name in model.modalities}
    return Batch(
        inputs={name: np.zeros((num_clips, num_frames, *shape), dtype) for name, (shape, dtype) in shapes.items()}
        | {name: np.zeros((num_clips, of.most(num_frames), of.dim), np.float32) for name, of in (extras or {}).items()},
        present={name: np.zeros(num_clips, bool) for name in (*model.modalities, *(extras or {}))},
        valid_BT=np.zeros((num_clips, num_frames), bool),
        targets_BTS=np.full((num_clips, num_frames, max(num_codebooks, 1)), -1, np.int32),
        labels={name: no_label(name, array) for name, array in (labels or {}).items()},
        clip_B=np.full(num_clips, -1, np.int32),
        chance_B=np.zeros(num_clips, np.uint32),
    )


def put_clip(
    batch: Batch,
    b: int,
    clip: Clip,
    frames: range,
    present: Sequence[str],
    model: ModelConfig,
    augmentation: Augmentation | None = None,
) -> None:
    """Makes these frames of a clip row b of the batch. present: those of the model's modalities that the clip has."""
    batch.valid_BT[b, : len(frames)] = True
    for name in present:
        batch.present[name][b] = True
        batch.inputs[name][b, : len(frames)] = INPUTS[name].make(clip, frames, model.inputs, augmentation)


def _clear(batch: Batch, b: int) -> None:
    """Makes a row as `empty_batch` does, but for which clip it is of."""
    for name, of_row in batch.inputs.items():
        of_row[b], batch.present[name][b] = 0, False
    batch.valid_BT[b], batch.targets_BTS[b] = False, -1
    for of_row in batch.labels.values():
        of_row[b] = np.nan if np.issubdtype(of_row.dtype, np.floating) else -1


def _of_frames(ids_T: np.ndarray, clip: Clip, per_frame: int) -> np.ndarray:
    # The first round's MFCC may end a frame before the picture or after it.
    if abs(len(ids_T) - clip.num_frames * per_frame) > per_frame:
        raise ValueError(
            f"clip {clip.clip_id!r} has {clip.num_frames} frames, but its targets {len(ids_T)}"
            f"{f' of {per_frame} a frame' if per_frame > 1 else ''}; make the targets again"
        )
    return ids_T[::per_frame]
