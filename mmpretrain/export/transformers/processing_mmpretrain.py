"""Sound and crops of talking faces as the audio-visual encoder takes them, for `transformers`.

This file is complete in itself: it is copied beside the weights, and needs numpy and transformers alone.
Dims: B clips, T frames of 40 ms, N samples at 16 kHz or rows of 10 ms, F features, S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin, ProcessorMixin

SAMPLING_RATE, SAMPLES_PER_FRAME = 16_000, 640
WINDOW, HOP, FFT_SIZE, NUM_BANDS, STACK = 400, 160, 512, 26, 4  # 25 ms every 10 ms; four rows a frame
LEVEL_FLOOR, LEVEL_MEAN, LEVEL_SCALE, LEVEL_SHARE, LEAST_DEVIATION = 0.0, 8.0, 5.0, 0.5, 1e-3


def mel_weights() -> np.ndarray:
    """[257, 26]: triangles between edges that are equally far apart in mel, moved down to the next bin."""
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLING_RATE / 2 / 700), NUM_BANDS + 2)
    bins = np.floor((FFT_SIZE + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLING_RATE)
    left, centre, right, i = bins[:-2], bins[1:-1], bins[2:], np.arange(FFT_SIZE // 2 + 1)[:, None]
    rising = np.where((left <= i) & (i < centre), (i - left) / (centre - left), 0)
    return rising + np.where((centre <= i) & (i < right), (right - i) / (right - centre), 0)


def log_filterbank(audio_N: np.ndarray) -> np.ndarray:
    """float32 [N, 26]: log energies of mel bands, 100 rows a second, of int16 sound."""
    if not len(audio_N):
        return np.zeros((0, NUM_BANDS), np.float32)
    signal = audio_N.astype(np.float64)
    signal[1:] -= 0.97 * audio_N[:-1]
    num_rows = 1 + max(0, -(-(len(signal) - WINDOW) // HOP))
    signal = np.pad(signal, (0, (num_rows - 1) * HOP + WINDOW - len(signal)))
    spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP], FFT_SIZE)
    energies = (np.square(spectrum.real) + np.square(spectrum.imag)) / FFT_SIZE @ mel_weights()
    return np.log(np.where(energies == 0, np.finfo(np.float64).eps, energies)).astype(np.float32)


class MMPretrainFeatureExtractor(FeatureExtractionMixin):
    """Sound to normalised rows of log filterbanks, 25 a second.

    normalization: "frame" scales each row to mean 0 and variance 1; "level" adds a share of its level back; "clip"
    scales each band to mean 0 and variance 1 over the clip.
    """

    model_input_names = ("input_values", "attention_mask")

    def __init__(self, sampling_rate: int = SAMPLING_RATE, normalization: str = "frame", **kwargs: Any):
        super().__init__(**kwargs)
        self.sampling_rate, self.normalization = sampling_rate, normalization
        self.feature_size, self.frame_rate, self.padding_value = STACK * NUM_BANDS, 25, 0.0

    def rows(self, audio_N: np.ndarray, num_frames: int | None = None) -> np.ndarray:
        """float32 [T, 104] of a clip's sound, int16 or float from -1 to 1.

        num_frames: T; sound that goes on is cut, sound that ends early continued with 0. None: as long as the sound.
        Raises ValueError for anything but mono sound.
        """
        audio_N = np.asarray(audio_N)
        if audio_N.ndim != 1 or not (audio_N.dtype == np.int16 or np.issubdtype(audio_N.dtype, np.floating)):
            raise ValueError(f"sound must be int16 or float [N], mono, but is {audio_N.dtype} {list(audio_N.shape)}")
        if audio_N.dtype != np.int16:
            if not np.isfinite(audio_N).all():
                raise ValueError("sound must be finite, but holds NaN or infinity")
            audio_N = np.clip(np.round(audio_N * 32768.0), -32768, 32767).astype(np.int16)
        num_frames = -(-len(audio_N) // SAMPLES_PER_FRAME) if num_frames is None else num_frames
        fbank_NF = log_filterbank(audio_N[: num_frames * SAMPLES_PER_FRAME])
        if self.normalization != "frame":
            fbank_NF = np.maximum(fbank_NF, np.float32(LEVEL_FLOOR))
        if self.normalization == "clip" and len(fbank_NF):
            centred = fbank_NF[: num_frames * STACK]
            centred = centred - centred.mean(axis=0, dtype=np.float64)
            fbank_NF = centred / np.sqrt(np.square(centred).mean(axis=0) + LEAST_DEVIATION**2)
            fbank_NF = fbank_NF.astype(np.float32)
        fbank_NF = np.pad(fbank_NF, ((0, -len(fbank_NF) % STACK), (0, 0)))
        rows_TF = fbank_NF.reshape(-1, STACK * NUM_BANDS)[:num_frames]
        if self.normalization != "clip":
            mean_T1 = rows_TF.mean(axis=1, keepdims=True, dtype=np.float64)  # exact for equal values
            centred = rows_TF - mean_T1
            rows_TF = (centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)).astype(np.float32)
        if self.normalization == "level":
            rows_TF += np.float32(LEVEL_SHARE) * ((mean_T1 - LEVEL_MEAN) / LEVEL_SCALE).astype(np.float32)
        return np.pad(rows_TF, ((0, num_frames - len(rows_TF)), (0, 0)))

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[np.ndarray | None],
        sampling_rate: int | None = None,
        num_frames: Sequence[int | None] | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_values` [B, T, 104] and `attention_mask` [B, T] of one clip's sound or several clips'.

        None, or no samples, is a clip without sound. num_frames: of each clip's pictures, which decide how long it is.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"sampling_rate={sampling_rate}; the encoder hears {self.sampling_rate} Hz: resample it")
        is_one = hasattr(raw_speech, "ndim") or (len(raw_speech) > 0 and np.isscalar(raw_speech[0]))
        clips = [np.asarray(raw_speech)] if is_one else list(raw_speech)
        lengths = [None] * len(clips) if num_frames is None else num_frames
        none = np.zeros((0, self.feature_size), np.float32)
        rows = [none if clip is None or not len(clip) else self.rows(clip, length)
                for clip, length in zip(clips, lengths, strict=True)]  # fmt: skip
        longest = max(1, *map(len, rows), *(length or 0 for length in lengths))
        values = np.zeros((len(rows), longest, self.feature_size), np.float32)
        mask = np.zeros((len(rows), longest), np.int64)
        for b, rows_TF in enumerate(rows):
            values[b, : len(rows_TF)], mask[b, : len(rows_TF)] = rows_TF, 1
        return BatchFeature({"input_values": values, "attention_mask": mask}, tensor_type=return_tensors)


class MMPretrainProcessor(ProcessorMixin):
    """Sound, crops or both of several clips to one batch.

    image_size: the side of the square in the middle of a crop that the encoder sees. view: of what the crops are.
    """

    def __init__(
        self,
        feature_extractor: MMPretrainFeatureExtractor,
        image_size: int = 88,
        pixel_mean: float = 0.421,
        pixel_std: float = 0.165,
        view: str = "mouth",
        **kwargs: Any,
    ):
        self.image_size, self.pixel_mean, self.pixel_std, self.view = image_size, pixel_mean, pixel_std, view
        super().__init__(feature_extractor, **kwargs)

    def pixels(self, video_TSS: np.ndarray) -> np.ndarray:
        """float32 [T, 1, S, S] of a clip's grey crops, uint8. Raises ValueError for others."""
        video_TSS, size = np.asarray(video_TSS), self.image_size
        if video_TSS.dtype != np.uint8 or video_TSS.ndim != 3 or min(video_TSS.shape[1:]) < size:
            raise ValueError(
                f"a clip must be uint8 [T, S, S], grey {self.view} crops at 25 fps with S at least {size}, but is "
                f"{video_TSS.dtype} {list(video_TSS.shape)}"
            )
        top, left = ((stored - size) // 2 for stored in video_TSS.shape[1:])
        middle = video_TSS[:, None, top : top + size, left : left + size].astype(np.float32)
        return (middle / np.float32(255) - np.float32(self.pixel_mean)) / np.float32(self.pixel_std)

    def __call__(
        self,
        audio: np.ndarray | Sequence[np.ndarray | None] | None = None,
        videos: np.ndarray | Sequence[np.ndarray | None] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_values`, `attention_mask`, `pixel_values_videos`, `padding_mask_videos`, as far as they are given.

        audio: sound as the feature extractor takes it. videos: uint8 [T, S, S], grey crops at 25 fps. Either may be
        one clip's or a list, None for a clip that lacks it. Pictures, where there are any, decide how long a clip is.
        """
        sounds, crops = ([x] if hasattr(x, "ndim") else x for x in (audio, videos))  # of NumPy, or a tensor
        if sounds is None and crops is None:
            raise ValueError("give audio, videos or both")
        batch: dict[str, Any] = {}
        pictures = [None if clip is None else self.pixels(clip) for clip in crops] if crops is not None else None
        if sounds is not None:
            lengths = None if pictures is None else [None if clip is None else len(clip) for clip in pictures]
            batch |= self.feature_extractor(sounds, sampling_rate, lengths)
        if pictures is not None:
            least = batch["attention_mask"].shape[1] if batch else 1
            longest = max(least, *(0 if clip is None else len(clip) for clip in pictures))
            values = np.zeros((len(pictures), longest, 1, self.image_size, self.image_size), np.float32)
            mask = np.zeros((len(pictures), longest), np.int64)
            for b, clip in enumerate(pictures):
                if clip is not None:
                    values[b, : len(clip)], mask[b, : len(clip)] = clip, 1
            batch |= {"pixel_values_videos": values, "padding_mask_videos": mask}
        return BatchFeature(batch, tensor_type=return_tensors)
