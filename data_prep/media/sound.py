"""The sound of a file: int16 mono at 16 kHz, holes in the track as silence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import av
import numpy as np
from av.stream import Disposition

from data_prep.media.container import MAX_GAP_SEC, Media, decode, open_container, seek
from data_prep.media.mixing import Listener, Mix, Reader, may_leave_range
from mmpretrain.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

SOUND_GAP_SEC = 0.04  # a larger step between sound frames is a hole (or an overlap) in the track
SETTLED_SEC = 1.0  # before a part that is sought; earlier, stamps may be off and decoders not yet at rest
RUN_OUT_SEC = 0.1  # behind a part, for the resampler's filter
NOTED_SEC = 0.1  # holes or overlaps that add up to more are worth a note
SILENT_LEVEL = 1e-4  # of full scale (-80 dB): a track below it is silent beside another

Format = tuple[str, str, int]  # of samples: kind of number, layout of the channels, rate


def audio_samples(media: Media, num_frames: int | None = None) -> np.ndarray:
    """The sound as int16 [N] at 16 kHz, all channels mixed; holes in the track are silence.

    N = 640 num_frames where that is given (cut, or padded with silence), else as much as there is. What was done with
    tracks, channels and samples is said in `media.sound_notes`.
    """
    track, notes = _choose_track(media)
    if track is None:
        return np.zeros(0, np.int16)
    with open_container(media.path) as container:
        stream = container.streams[track.index]
        media.sample_rate, media.channels = stream.rate or 0, stream.channels or 0
        settled_sec = media.origin_sec - SETTLED_SEC if seek(container, stream, media) else -math.inf
        runs = list(_sound_runs(container, stream, media, track.mixes, settled_sec))
    media.spoilt = sum(mix.spoilt for mix in track.mixes.values())
    media.sound_notes = (*notes, *_gap_notes(runs, media))
    if not runs:
        return np.zeros(0, np.int16)
    starts = [round((time - media.origin_sec) * SAMPLE_RATE_HZ) for time, _ in runs]
    media.sound_from_sec = starts[0] / SAMPLE_RATE_HZ
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


def sound_streams(container: av.container.InputContainer) -> list[av.AudioStream]:
    """The tracks that can be decoded."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


@dataclasses.dataclass(frozen=True)
class _Track:
    """One track of a file as it was heard. index: among all streams. energy: as that of a `Mix`."""

    index: int
    seconds: float
    mixes: dict[Format, Mix]

    @property
    def energy(self) -> float:
        return sum(mix.energy for mix in self.mixes.values())

    def is_heard(self) -> bool:
        return self.energy > SILENT_LEVEL**2 * self.seconds


def _choose_track(media: Media) -> tuple[_Track | None, list[str]]:
    """The default track, or, of several and where it is silent, the loudest of the others; and what is to be said."""
    with open_container(media.path) as container:
        found = sound_streams(container)
        streams = [(stream.index, bool(stream.disposition & Disposition.default)) for stream in found]
        if len(found) == 1 and found[0].channels == 1 and not may_leave_range(found[0].codec_context.format):
            return _Track(found[0].index, 0.0, {}), []  # nothing to choose
    taken, why = None, ""
    for default in (True, False):
        tracks = [_listen(media, index) for index, is_default in streams if is_default == default]
        if not tracks:
            continue
        loudest = max(tracks, key=lambda track: track.energy)
        if taken is None or loudest.is_heard():
            silent = ", since the default one is silent" if taken else ""
            taken, why = loudest, "the default one" if default and len(tracks) == 1 else "the loudest" + silent
        if taken.is_heard():
            break
    if taken is None:
        return None, []
    notes = dict.fromkeys(note for mix in taken.mixes.values() for note in mix.notes)
    number = [index for index, _ in streams].index(taken.index) + 1
    return taken, [*([f"audio track {number} of {len(streams)} is taken, {why}"] if len(streams) > 1 else []), *notes]


def _listen(media: Media, index: int) -> _Track:
    """Hears all of a track that belongs to the clip."""
    media = dataclasses.replace(media)  # what is damaged is counted when the sound is taken
    listeners: dict[Format, Listener] = {}
    seconds = 0.0
    with open_container(media.path) as container:
        stream = container.streams[index]
        seek(container, stream, media)
        for time, frame in decode(container, stream, media):
            if time >= media.end_sec:
                break
            length_sec = frame.samples / frame.sample_rate
            if time + length_sec > media.origin_sec:
                seconds += length_sec
                key = _format_of(frame)
                if key not in listeners:
                    listeners[key] = Listener(frame)
                listeners[key].add(frame)
    return _Track(index, seconds, {key: listener.mix() for key, listener in listeners.items()})


def _sound_runs(
    container, stream, media: Media, mixes: dict[Format, Mix], settled_sec: float
) -> Iterator[tuple[float, np.ndarray]]:
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
        run = run or _SoundRun(time, frame, mixes.get(_format_of(frame)) or Listener(frame).mix())
        run.add(frame)
    if run is not None:
        yield run.start_sec, run.finish()


class _SoundRun:
    """Frames of one format that follow each other, mixed and resampled together."""

    def __init__(self, time: float, frame: av.AudioFrame, mix: Mix):
        self.start_sec = self.end_sec = time
        self._format, self._mix, self._reader = _format_of(frame), mix, Reader(frame)
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        self._pieces: list[np.ndarray] = []
        self._count = 0

    def continues(self, time: float, frame: av.AudioFrame) -> bool:
        # The end is counted from the start of the run: small holes add up, and the run ends before they are many.
        return abs(time - self.end_sec) <= SOUND_GAP_SEC and _format_of(frame) == self._format

    def add(self, frame: av.AudioFrame) -> None:
        self._count += frame.samples
        self.end_sec = self.start_sec + self._count / frame.sample_rate
        mono = av.AudioFrame.from_ndarray(self._mix.apply(self._reader.read(frame))[None], "flt", "mono")
        mono.sample_rate = frame.sample_rate
        self._take(self._resampler.resample(mono))

    def finish(self) -> np.ndarray:
        self._take(self._resampler.resample(None))
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)

    def _take(self, frames: list[av.AudioFrame]) -> None:
        self._pieces.extend(frame.to_ndarray().reshape(-1) for frame in frames)


def _format_of(frame: av.AudioFrame) -> Format:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _gap_notes(runs: list[tuple[float, np.ndarray]], media: Media) -> list[str]:
    """Where the sound of the clip is not whole."""
    inside = np.array([start for start, _ in runs[1:]]).clip(media.origin_sec, media.end_sec)
    ends = np.array([start + len(samples) / SAMPLE_RATE_HZ for start, samples in runs[:-1]])
    steps = inside - ends.clip(media.origin_sec, media.end_sec)
    holes_sec, overlaps_sec = float(steps[steps > 0].sum()), -float(steps[steps < 0].sum())
    notes = [f"{holes_sec:.1f} s are missing within the sound and are silence"] if holes_sec > NOTED_SEC else []
    return notes + ([f"{overlaps_sec:.1f} s of the sound overlap and are cut"] if overlaps_sec > NOTED_SEC else [])
