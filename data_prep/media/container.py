"""Opens a media file and hands out what its streams decode to, in the order of time, on the container's clock."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import av

from data_prep.faults import is_shortage
from data_prep.media import limits
from mmpretrain.listing import file_url
from mmpretrain.records import FRAME_RATE_HZ

MAX_GAP_SEC = 60.0  # a larger hole is a broken clock
SEEK_EARLY_SEC = 1.0  # decoders need a run-up before the part that is wanted


@dataclasses.dataclass
class Media:
    """One file, or a part of it, and what its streams say. Times are on the container's clock.

    width, height: of the picture as shown (rotated, square pixels); 0 without one. declared_sec: the length the file
    claims. damaged: packets that could not be decoded, counted while reading. begin_sec: where the file begins.
    picture_track: whether there is one that should be a picture, though nothing of it may decode.
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
    picture_track: bool = False


def open_container(path: Path) -> av.container.InputContainer:
    try:
        return av.open(file_url(path), metadata_errors="replace")
    except av.FFmpegError as error:
        if isinstance(error, OSError) or is_shortage(error):  # the disk or the machine, not the file
            raise
        with open(path, "rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                raise ValueError("is a git-lfs pointer, not the file: run `git lfs pull` in the corpus") from None
        raise ValueError(f"cannot be opened: {error.strerror}") from None


def seek(container: av.container.InputContainer, stream: av.stream.Stream, sec: float) -> None:
    """Goes to a key frame some way before `sec`; stays at the beginning where that is near or the format cannot."""
    begin = (container.start_time or 0) / 1e6
    if sec - SEEK_EARLY_SEC > begin + SEEK_EARLY_SEC:
        try:
            container.seek(round((sec - SEEK_EARLY_SEC) / stream.time_base), stream=stream)
        except av.FFmpegError as error:
            if is_shortage(error):
                raise
            container.seek(0)


def decode(
    container: av.container.InputContainer, stream: av.stream.Stream, media: Media
) -> Iterator[tuple[float, av.frame.Frame]]:
    """Frames of a stream with their times in rising order. Packets that do not decode are counted and passed over."""
    stream.codec_context.options = limits.DECODER_OPTIONS
    last = -math.inf
    for packet in _packets(container, stream, media):
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            if is_shortage(error):
                raise
            media.damaged += 1
            continue
        for frame in frames:
            time = frame.time
            if time is None:
                time = 0.0 if last == -math.inf else last + duration(frame, stream)
            limits.check_frame(frame, time - media.origin_sec)
            if time > last:
                yield time, frame
                last = time


def _packets(container: av.container.InputContainer, stream, media: Media) -> Iterator[av.Packet | None]:
    """Packets of a stream; None, which makes the decoder hand out what it still holds, where a file breaks off."""
    try:
        yield from container.demux(stream)
    except (av.FFmpegError, IndexError) as error:  # IndexError: PyAV, where a stream turns up in the midst of a file
        if is_shortage(error):
            raise
        media.damaged += 1
        yield None


def duration(frame: av.frame.Frame, stream: av.stream.Stream) -> float:
    """How long a frame lasts by what it says, or by the stream's rate."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return 1 / float(stream.average_rate or FRAME_RATE_HZ)
