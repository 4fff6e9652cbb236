"""One clip to what the network takes of it: for training, for evaluation and for exported encoders alike.

A new modality is an `Input` in `INPUTS` here, and a front-end under the same name in `models.frontends`.
Dims: T frames, H x W pixels, N samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mmpretrain.config import AUDIO_DIM, DataConfig, InputConfig
from mmpretrain.data.noise import mix_noise, noise_segment
from mmpretrain.data.video import centre_offset, crop_and_flip, random_offset
from mmpretrain.features.filterbank import NUM_BANDS, audio_features
from mmpretrain.records import SAMPLES_PER_FRAME, Clip


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training changes about one clip in one epoch: how much it may, and the streams that it is drawn from.

    freq_mask: the widest band of filterbank channels that is hidden. freq_warp: frequencies are stretched by
    1 - `freq_warp` to 1 + `freq_warp`. stream(name): a generator of the clip's own.
    """

    data: DataConfig
    stream: Callable[[str], np.random.Generator]
    freq_mask: int = 0
    freq_warp: float = 0.0


class Input(NamedTuple):
    """A modality. needs: what a clip must have for it ("audio", "video" or a track), as in `IndexRow.has`.

    frame_shape(config): of one frame. described(config): what a user hands in, in words.
    make(clip, frames, config, augmentation): these frames of the clip, which has what is needed, as an array
    [len(frames), *frame_shape]; augmentation None: unchanged.
    """

    needs: str
    frame_shape: Callable[[InputConfig], tuple[int, ...]]
    dtype: type
    described: Callable[[InputConfig], str]
    make: Callable[[Clip, range, InputConfig, Augmentation | None], np.ndarray]


def _audio(clip: Clip, frames: range, config: InputConfig, augmentation: Augmentation | None) -> np.ndarray:
    sound_N = clip.audio[frames.start * SAMPLES_PER_FRAME : frames.stop * SAMPLES_PER_FRAME]
    band, warp = None, 1.0
    if augmentation is not None:
        if augmentation.data.noise.prob:
            sound_N = _add_noise(sound_N, augmentation.data, augmentation.stream("noise"))
        if augmentation.freq_mask:
            band = _draw_band(augmentation.freq_mask, augmentation.stream("band"))
        if augmentation.freq_warp:
            warp += augmentation.freq_warp * augmentation.stream("warp").uniform(-1, 1)
    return audio_features(sound_N, len(frames), config.audio_normalization, band, warp)


def _video(clip: Clip, frames: range, config: InputConfig, augmentation: Augmentation | None) -> np.ndarray:
    video_THW = (clip.mouth if config.view == "mouth" else clip.face)[frames.start : frames.stop]
    offset_yx, flip = centre_offset(video_THW, config.image_size), False
    if augmentation is not None:
        if augmentation.data.random_crop:
            offset_yx = random_offset(video_THW, config.image_size, augmentation.stream("crop"))
        flip = augmentation.data.flip and augmentation.stream("flip").random() < 0.5
    return crop_and_flip(video_THW, config.image_size, offset_yx, flip)


INPUTS: dict[str, Input] = {
    "audio": Input(
        "audio", lambda config: (AUDIO_DIM,), np.float32, lambda config: "audio int16 [N], mono, 16 kHz", _audio
    ),
    "video": Input(
        "video",
        lambda config: (config.image_size, config.image_size),
        np.uint8,
        lambda config: f"video uint8 [T, S, S], grey {config.view} crops, 25 fps, S >= {config.image_size}",
        _video,
    ),
}


def _add_noise(sound_N: np.ndarray, data: DataConfig, rng: np.random.Generator) -> np.ndarray:
    if not len(sound_N) or rng.random() >= data.noise.prob:
        return sound_N
    return mix_noise(sound_N, noise_segment(data.noise.path, len(sound_N), rng), data.noise.snr_db)


def _draw_band(widest: int, rng: np.random.Generator) -> tuple[int, int]:
    """(first, width) of the filterbank channels to hide: up to `widest` of them, anywhere."""
    width = int(rng.integers(0, widest, endpoint=True))
    return int(rng.integers(0, NUM_BANDS - width, endpoint=True)), width
