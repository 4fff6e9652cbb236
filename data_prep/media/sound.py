"""The sound of a file: int16 mono at 16 kHz, holes in the track as silence."""

from __future__ import annotations

import math
from collections.abc import Iterator

import av
import numpy as np

from data_prep.media.container import MAX_GAP_SEC, Media, decode, open_container, seek
from mmpretrain.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

SOUND_GAP_SEC = 0.04  # a larger step between sound frames is a hole (or an overlap) in the track
SETTLED_SEC = 1.0  # before a part that is sought; earlier, stamps may be off and decoders not yet at rest
RUN_OUT_SEC = 0.1  # behind a part, for the resampler's filter


def audio_samples(media: Media, num_frames: int | None = None) -> np.ndarray:
    """The sound as int16 [N] at 16 kHz, all channels mixed by their layout; holes in the track are silence.

    N = 640 num_frames where that is given (cut, or padded with silence), else as much as there is.
    """
    with open_container(media.path) as container:
        stream = sound_stream(container)
        if stream is None:
            return np.zeros(0, np.int16)
        settled_sec = media.origin_sec - SETTLED_SEC if seek(container, stream, media) else -math.inf
        runs = list(_sound_runs(container, stream, media, settled_sec))
    if not runs:
        return np.zeros(0, np.int16)
    starts = [round((time - media.origin_sec) * SAMPLE_RATE_HZ) for time, _ in runs]
    if num_frames is not None:
        length = num_frames * SAMPLES_PER_FRAME
    else:
        length = max(start + len(samples) for start, (_, samples) in zip(starts, runs, strict=True))
        if media.end_sec < math.inf:
            length = min(length, round((media.end_sec - media.origin_sec) * SAMPLE_RATE_HZ))
    audio = np.zeros(max(length, 0), np.int16)
    for start, (_, samples) in zip(starts, runs, strict=True):
        first, last = max(start, 0), min(start + len(samples), len(audio))
        if first < last:
            audio[first:last] = samples[first - start : last - start]
    return audio


def is_silent(audio: np.ndarray) -> bool:
    """True for a track of zeros, as RAVDESS' picture-only files have (or of rounding noise)."""
    return len(audio) == 0 or bool(audio.min() >= -1 and audio.max() <= 1)


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def _sound_runs(container, stream, media: Media, settled_sec: float) -> Iterator[tuple[float, np.ndarray]]:
    """Stretches of sound without a hole: (time of the first sample, int16 [n] mono at 16 kHz)."""
    run: _SoundRun | None = None
    for time, frame in decode(container, stream, media):
        if time < settled_sec:
            continue
        if time >= media.end_sec + RUN_OUT_SEC:
            break
        if run is not None and not run.continues(time, frame):
            if abs(time - run.end_sec) > MAX_GAP_SEC:
                raise ValueError(f"the sound's time stamps jump by {time - run.end_sec:.0f} s")
            yield run.start_sec, run.finish()
            run = None
        run = run or _SoundRun(time, frame)
        run.add(frame)
    if run is not None:
        yield run.start_sec, run.finish()


class _SoundRun:
    """Frames of one format that follow each other, resampled together."""

    def __init__(self, time: float, frame: av.AudioFrame):
        self.start_sec = self.end_sec = time
        self._format = self._format_of(frame)
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        self._pieces: list[np.ndarray] = []
        self._count = 0

    def continues(self, time: float, frame: av.AudioFrame) -> bool:
        return abs(time - self.end_sec) <= SOUND_GAP_SEC and self._format_of(frame) == self._format

    def add(self, frame: av.AudioFrame) -> None:
        self._count += frame.samples
        self.end_sec = self.start_sec + self._count / frame.sample_rate
        frame.pts = None  # the run is whole: small steps between the stamps of its frames are rounding
        self._take(self._resampler.resample(frame))

    def finish(self) -> np.ndarray:
        self._take(self._resampler.resample(None))
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)

    def _take(self, frames: list[av.AudioFrame]) -> None:
        self._pieces.extend(frame.to_ndarray().reshape(-1) for frame in frames)

    @staticmethod
    def _format_of(frame: av.AudioFrame) -> tuple[str, str, int]:
        return frame.format.name, frame.layout.name, frame.sample_rate
