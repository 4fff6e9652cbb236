"""Decodes picture and sound with PyAV onto one clock: frames at 25 fps and mono samples at 16 kHz, from the same 0.

The clock starts at the first picture (or at `start_sec` of a part of a file), so that a sound track that starts later
is padded and one that starts earlier is cut. Frames are placed by their time stamps, never by counting.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from mmpretrain.records import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

STAMP_TOLERANCE_SEC = 2e-3  # containers round time stamps, many to a millisecond
SOUND_GAP_SEC = 0.04  # a larger step between sound frames is a hole (or an overlap) in the track
MAX_GAP_SEC = 60.0  # a larger hole is a broken clock
DECODING_ERRORS = (ValueError, OSError, RuntimeError, av.FFmpegError)  # all that a file can cause while it is read
SEEK_EARLY_SEC = 1.0  # decoders need a run-up before the part that is wanted


@dataclasses.dataclass
class Media:
    """One file, or a part of it, and what its streams say. Times are on the container's clock.

    width, height: of the picture as shown (rotated, square pixels); 0 without one. declared_sec: the length the file
    claims. damaged: packets that could not be decoded, counted while reading. begin_sec: where the file begins.
    """

    path: Path
    has_picture: bool
    has_sound: bool
    origin_sec: float
    end_sec: float
    declared_sec: float = 0.0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    damaged: int = 0
    begin_sec: float = 0.0


def open_media(path: Path, start_sec: float = 0.0, end_sec: float | None = None) -> Media:
    """Looks into a file. Raises ValueError or OSError, in a few words, if it cannot be read."""
    with _open(path) as container:
        picture, sound = _picture_stream(container), _sound_stream(container)
        begin = (container.start_time or 0) / 1e6
        origin = begin + start_sec
        end = math.inf if end_sec is None else begin + end_sec
        declared = (container.duration or 0) / 1e6
        media = Media(path, False, sound is not None, origin, end, max(0.0, min(declared, end - begin) - start_sec))
        media.begin_sec = begin
        if sound is not None:
            media.sample_rate, media.channels = sound.rate or 0, sound.channels or 0
        if picture is not None:
            first = next(_decode(container, picture, media), None)
            if first is not None:
                time, frame = first
                media.has_picture = True
                media.fps = float(picture.average_rate or 0)
                media.height, media.width = _upright(frame, _pixel_aspect(picture)).shape[:2]
                if start_sec == 0:
                    media.origin_sec = time
        media.damaged = 0
    return media


def video_frames(media: Media) -> Iterator[tuple[np.ndarray, int]]:
    """The pictures shown at 0, 40, 80 ... ms: (RGB uint8 [H, W, 3], for how many of these ticks it is the one shown).

    A tick shows the last frame at or before it. Upright, with square pixels. The counts add up to the clip's T frames.
    """
    for frame, aspect, count in _shown(media):
        yield _upright(frame, aspect), count


def shown_frames(media: Media) -> Iterator[np.ndarray]:
    """The T frames, RGB uint8 [H, W, 3]; one that is shown for several ticks comes several times."""
    for rgb, count in video_frames(media):
        for _ in range(count):
            yield rgb


def audio_samples(media: Media, num_frames: int | None = None) -> np.ndarray:
    """The sound as int16 [N] at 16 kHz, all channels mixed by their layout; holes in the track are silence.

    N = 640 num_frames where that is given (cut, or padded with silence), else as much as there is.
    """
    with _open(media.path) as container:
        stream = _sound_stream(container)
        if stream is None:
            return np.zeros(0, np.int16)
        _seek(container, stream, media.origin_sec)
        runs = list(_sound_runs(container, stream, media))
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
    return len(audio) == 0 or int(np.abs(audio.astype(np.int32)).max()) <= 1


def _open(path: Path) -> av.container.InputContainer:
    try:
        return av.open(str(path), metadata_errors="replace")
    except OSError:  # the disk, not the file
        raise
    except av.FFmpegError as error:
        with open(path, "rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                raise ValueError("is a git-lfs pointer, not the file: run `git lfs pull` in the corpus") from None
        raise ValueError(f"cannot be opened: {error.strerror}") from None


def _picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first video stream that is not a cover picture."""
    streams = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next((s for s in streams if s.codec_context is not None), None)


def _sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def _seek(container: av.container.InputContainer, stream: av.stream.Stream, sec: float) -> None:
    """Goes to a key frame some way before `sec`; stays at the beginning where that is near or the format cannot."""
    begin = (container.start_time or 0) / 1e6
    if sec - SEEK_EARLY_SEC > begin + SEEK_EARLY_SEC:
        try:
            container.seek(round((sec - SEEK_EARLY_SEC) / stream.time_base), stream=stream)
        except av.FFmpegError:
            container.seek(0)


def _decode(container: av.container.InputContainer, stream, media: Media) -> Iterator[tuple[float, av.frame.Frame]]:
    """Frames of a stream with their times in rising order. Packets that do not decode are counted and passed over."""
    last = -math.inf
    for packet in _packets(container, stream, media):
        try:
            frames = stream.decode(packet)
        except av.FFmpegError:
            media.damaged += 1
            continue
        for frame in frames:
            time = frame.time
            if time is None:
                time = 0.0 if last == -math.inf else last + _duration(frame, stream)
            if time > last:
                yield time, frame
                last = time


def _packets(container: av.container.InputContainer, stream, media: Media) -> Iterator[av.Packet | None]:
    """Packets of a stream; None, which makes the decoder hand out what it still holds, where a file breaks off."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        media.damaged += 1
        yield None


def _duration(frame, stream) -> float:
    """How long a frame lasts by what it says, or by the stream's rate."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return 1 / float(stream.average_rate or FRAME_RATE_HZ)


def _shown(media: Media) -> Iterator[tuple[av.VideoFrame, float, int]]:
    """(frame, pixel aspect, number of ticks it is shown for), each frame that is shown at all."""
    with _open(media.path) as container:
        stream = _picture_stream(container)
        stream.thread_type = "SLICE"
        aspect = _pixel_aspect(stream)
        _seek(container, stream, media.origin_sec)

        def ticks_before(sec: float) -> int:
            return math.ceil((min(sec, media.end_sec) - media.origin_sec - STAMP_TOLERANCE_SEC) * FRAME_RATE_HZ)

        shown, shown_at, tick = None, 0.0, 0
        for time, frame in _decode(container, stream, media):
            if shown is None and time > media.origin_sec + MAX_GAP_SEC:
                return
            if shown is not None:
                if time - shown_at > MAX_GAP_SEC:
                    raise ValueError(f"the picture's time stamps jump by {time - shown_at:.0f} s")
                if ticks_before(time) > tick:
                    yield shown, aspect, ticks_before(time) - tick
                    tick = ticks_before(time)
            shown, shown_at = frame, time
            if time >= media.end_sec:
                return
        if shown is not None:
            last = ticks_before(shown_at + min(_duration(shown, stream), 1.0))
            if last > tick:
                yield shown, aspect, last - tick


def _pixel_aspect(stream: av.VideoStream) -> float:
    return float(stream.sample_aspect_ratio or 1)


def _upright(frame: av.VideoFrame, aspect: float) -> np.ndarray:
    """RGB uint8 [H, W, 3] as a player shows it: square pixels, rotated as the display matrix says."""
    width = round(frame.width * aspect) if abs(aspect - 1) > 0.01 else frame.width
    rgb = frame.reformat(width=width, format="rgb24").to_ndarray()
    quarter_turns = round(frame.rotation / 90)
    # Rows may be padded in memory, and what takes the picture next (MediaPipe) would read the padding as pixels.
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns))


def _sound_runs(container, stream, media: Media) -> Iterator[tuple[float, np.ndarray]]:
    """Stretches of sound without a hole: (time of the first sample, int16 [n] mono at 16 kHz)."""
    run: _SoundRun | None = None
    for time, frame in _decode(container, stream, media):
        if time >= media.end_sec:
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
