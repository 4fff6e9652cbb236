"""From a planned batch to its arrays: loads the clips, crops, augments and pads them, in threads that work ahead.

Everything drawn for a clip depends on the seed, the epoch and the clip's id alone.
Dims: B clips, T frames, H x W pixels, N samples.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from mmpretrain.config import AUDIO_DIM, DataConfig, InputConfig, ModelConfig
from mmpretrain.data.batch_plan import BatchPlan, EvaluationPlan, PlannedBatch
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.noise import noise_files, noise_segment
from mmpretrain.data.video import centre_offset, crop_and_flip, random_offset
from mmpretrain.features.audio import NUM_BANDS, audio_features, mix_noise
from mmpretrain.randomness import clip_generator
from mmpretrain.records import SAMPLES_PER_FRAME, Batch, Clip

Planned = TypeVar("Planned")  # usually a PlannedBatch
Loaded = TypeVar("Loaded")  # usually a Batch


class Targets(Protocol):
    """Cluster ids of clips under one codebook, such as a target store."""

    def clip(self, clip_id: str) -> np.ndarray:
        """int32, one or more a frame."""


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
    labels: np.ndarray | None = None,
    freq_mask: int = 0,
    freq_warp: float = 0.0,
) -> Batch:
    """The batch of `planned` in numpy: zeros, False and -1 where there is no frame, no modality or no clip.

    In training (`train`) each clip has its own random stretch of time (where it is longer than the batch), place and
    mirroring of the picture, noise, hidden band of up to `freq_mask` filterbank channels, and stretch of frequencies by
    1 - `freq_warp` to 1 + `freq_warp`; otherwise the start, the centre and none of these. Sound, picture and targets
    begin at the same frame. targets: of each codebook; of several a frame the first is taken. labels: int32 [N] over
    the table.
    Raises ValueError naming the clip if it cannot be read or its targets have another length.
    """
    if train and data.noise.prob > 0:
        noise_files(data.noise.path)  # speaks up at the first batch if there is no noise, not at the first noisy clip
    num_clips, num_frames, size = len(planned.clips), planned.num_frames, model.inputs.image_size
    batch = Batch(
        audio_BTF=np.zeros((num_clips, num_frames, AUDIO_DIM), np.float32) if "audio" in model.modalities else None,
        video_BTHW=np.zeros((num_clips, num_frames, size, size), np.uint8) if "video" in model.modalities else None,
        valid_BT=np.zeros((num_clips, num_frames), bool),
        has_audio_B=np.zeros(num_clips, bool),
        has_video_B=np.zeros(num_clips, bool),
        targets_BTS=np.full((num_clips, num_frames, max(len(targets), 1)), -1, np.int32),
        label_B=np.full(num_clips, -1, np.int32),
        clip_B=planned.clips.astype(np.int32),
    )
    for b, row in enumerate(planned.clips):
        if row < 0:
            continue
        clip = table.load(row)
        stream = functools.partial(clip_generator, seed, epoch=planned.epoch, clip_id=clip.clip_id)
        length = min(clip.num_frames, num_frames)
        start = int(stream("time").integers(0, clip.num_frames - length, endpoint=True)) if train else 0
        batch.valid_BT[b, :length] = True
        batch.has_audio_B[b], batch.has_video_B[b] = table.has_audio[row], table.has_video[row]
        if batch.audio_BTF is not None and table.has_audio[row]:
            sound_N = clip.audio[start * SAMPLES_PER_FRAME : (start + length) * SAMPLES_PER_FRAME]
            band, warp = None, 1.0
            if train:
                sound_N = _add_noise(sound_N, data, stream("noise"))
                band = _draw_band(freq_mask, stream("band"))
                warp += freq_warp * stream("warp").uniform(-1, 1)
            batch.audio_BTF[b, :length] = audio_features(sound_N, length, model.inputs.audio_normalization, band, warp)
        if batch.video_BTHW is not None and table.has_video[row]:
            video_THW = _view(clip, model.inputs)[start : start + length]
            offset_yx, flip = centre_offset(video_THW, size), False
            if train:
                offset_yx, flip = _draw_picture(video_THW, size, data, stream("picture"))
            batch.video_BTHW[b, :length] = crop_and_flip(video_THW, size, offset_yx, flip)
        for s, store in enumerate(targets):
            ids_T = _clip_targets(store, clip, targets_per_frame)[start : start + length]
            batch.targets_BTS[b, : len(ids_T), s] = ids_T
        if labels is not None:
            batch.label_B[b] = labels[row]
    return batch


def iterate(
    plan: BatchPlan | EvaluationPlan | Sequence[Planned],
    load: Callable[[Planned], Loaded],
    *,
    first_step: int,
    num_steps: int,
    num_workers: int,
) -> Iterator[tuple[Planned, Loaded]]:
    """What `plan` has at `first_step` to `num_steps` - 1 (as `range` counts) and what `load` makes of it, in order.

    `num_workers` threads load ahead, up to two steps each; 0: the caller's thread loads. What `load` raises is raised
    here, in its turn. The threads end with the iterator, whether it is used up, closed or dropped.
    """
    import grain

    def load_step(step: int) -> tuple[Planned, Loaded]:
        planned = plan[step]
        return planned, load(planned)

    steps = grain.MapDataset.range(first_step, num_steps).map(load_step)
    options = grain.ReadOptions(num_threads=num_workers, prefetch_buffer_size=2 * num_workers)
    # Loading threads are the parallelism: those of BLAS on top of them make the filterbank several times slower.
    with threadpool_limits(1, "blas"), contextlib.closing(iter(steps.to_iter_dataset(options))) as batches:
        yield from batches


def _view(clip: Clip, inputs: InputConfig) -> np.ndarray:
    return {"mouth": clip.mouth, "face": clip.face}[inputs.view]


def _add_noise(sound_N: np.ndarray, data: DataConfig, rng: np.random.Generator) -> np.ndarray:
    if not len(sound_N) or rng.random() >= data.noise.prob:
        return sound_N
    return mix_noise(sound_N, noise_segment(data.noise.path, len(sound_N), rng), data.noise.snr_db)


def _draw_picture(video_THW, size: int, data: DataConfig, rng: np.random.Generator) -> tuple[tuple[int, int], bool]:
    """(top, left) of the crop, and whether to mirror it."""
    offset_yx = random_offset(video_THW, size, rng) if data.random_crop else centre_offset(video_THW, size)
    return offset_yx, data.flip and rng.random() < 0.5


def _draw_band(widest: int, rng: np.random.Generator) -> tuple[int, int]:
    """(first, width) of the filterbank channels to hide: up to `widest` of them, anywhere."""
    width = int(rng.integers(0, widest, endpoint=True))
    return int(rng.integers(0, NUM_BANDS - width, endpoint=True)), width


def _clip_targets(targets: Targets, clip: Clip, per_frame: int) -> np.ndarray:
    ids_T = targets.clip(clip.clip_id)
    # The first round's MFCC may end a frame before the picture or after it.
    if abs(len(ids_T) - clip.num_frames * per_frame) > per_frame:
        raise ValueError(
            f"clip {clip.clip_id!r} has {clip.num_frames} frames, but its targets {len(ids_T)}"
            f"{f' of {per_frame} a frame' if per_frame > 1 else ''}; make the targets again"
        )
    return ids_T[::per_frame]
