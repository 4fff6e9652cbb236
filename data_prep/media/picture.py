"""The picture of a file on the 25 Hz grid: upright, with square pixels, each frame placed by its time stamp."""

from __future__ import annotations

import math
from collections.abc import Iterator

import av
import numpy as np
from av.stream import Disposition

from data_prep.media import limits
from data_prep.media.container import MAX_GAP_SEC, Media, decode, duration, open_container, seek
from mmpretrain.records import FRAME_RATE_HZ

STAMP_TOLERANCE_SEC = 2e-3  # containers round time stamps, many to a millisecond


class KeptFrames:
    """The decoded pictures of a clip, for going through them once more, as long as they take no more than so many
    bytes: with `add`, beyond it none is kept."""

    def __init__(self, most_bytes: int):
        self._left = most_bytes
        self._frames: list[tuple[av.VideoFrame, float, int]] = []

    @property
    def is_whole(self) -> bool:
        return self._left >= 0

    def add(self, frame: av.VideoFrame, aspect: float, count: int) -> None:
        self._left -= sum(plane.buffer_size for plane in frame.planes)
        if self.is_whole:
            self._frames.append((frame, aspect, count))
        else:
            self._frames.clear()

    def shown(self) -> Iterator[np.ndarray]:
        """As `shown_frames`."""
        for frame, aspect, count in self._frames:
            rgb = upright(frame, aspect)
            for _ in range(count):
                yield rgb


def video_frames(
    media: Media, every: int = 1, kept: KeptFrames | None = None
) -> Iterator[tuple[np.ndarray | None, int]]:
    """The pictures shown at 0, 40, 80 ... ms: (RGB uint8 [H, W, 3], for how many of these ticks it is the one shown).

    A tick shows the last frame at or before it. Upright, with square pixels. The counts add up to the clip's T frames.
    every: of so many distinct pictures one is wanted; the others are None, which spares their conversion. kept: takes
    all of them.
    """
    for number, (frame, aspect, count) in enumerate(_shown(media)):
        if kept is not None:
            kept.add(frame, aspect, count)
        yield None if number % every else upright(frame, aspect), count


def shown_frames(media: Media) -> Iterator[np.ndarray]:
    """The T frames, RGB uint8 [H, W, 3]; one that is shown for several ticks comes several times."""
    for rgb, count in video_frames(media):
        for _ in range(count):
            yield rgb


def picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The default video stream, else the first; never a cover picture."""
    return max(picture_streams(container), key=lambda s: bool(s.disposition & Disposition.default), default=None)


def picture_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Those that can be decoded and are no cover pictures."""
    return [s for s in _no_covers(container) if s.codec_context is not None]


def has_picture_track(container: av.container.InputContainer) -> bool:
    """Whether there is such a stream, be it in a codec that nobody knows."""
    return bool(_no_covers(container))


def _no_covers(container: av.container.InputContainer) -> list[av.VideoStream]:
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _shown(media: Media) -> Iterator[tuple[av.VideoFrame, float, int]]:
    """(frame, pixel aspect, number of ticks it is shown for), each frame that is shown at all."""
    with open_container(media.path) as container:
        stream = picture_stream(container)
        stream.thread_type = "SLICE"
        aspect = pixel_aspect(stream)
        media.aspects.clear()
        seek(container, stream, media)

        def ticks_before(sec: float) -> int:
            return math.ceil((min(sec, media.end_sec) - media.origin_sec - STAMP_TOLERANCE_SEC) * FRAME_RATE_HZ)

        shown, shown_at, tick = None, 0.0, 0
        for time, frame in decode(container, stream, media):
            if shown is None and time > media.origin_sec + MAX_GAP_SEC:
                return
            if shown is not None:
                if time - shown_at > MAX_GAP_SEC:
                    raise ValueError(f"the picture's time stamps jump by {time - shown_at:.0f} s")
                if ticks_before(time) > tick:
                    media.still_sec = max(media.still_sec, (ticks_before(time) - tick) / FRAME_RATE_HZ)
                    yield shown, _aspect_at(media, shown_at, aspect), ticks_before(time) - tick
                    tick = ticks_before(time)
            shown, shown_at = frame, time
            if time >= media.end_sec:
                return
        if shown is not None:
            last = ticks_before(shown_at + min(duration(shown, stream), 1.0))
            if last > tick:
                yield shown, _aspect_at(media, shown_at, aspect), last - tick


def _aspect_at(media: Media, sec: float, at_first: float) -> float:
    return next((aspect for since, aspect in reversed(media.aspects) if since <= sec), at_first)


def pixel_aspect(stream: av.VideoStream) -> float:
    return float(stream.sample_aspect_ratio or 1)


def upright(frame: av.VideoFrame, aspect: float) -> np.ndarray:
    """RGB uint8 [H, W, 3] as a player shows it: square pixels, rotated as the display matrix says."""
    limits.check_picture(frame.width, frame.height, aspect)
    width = round(frame.width * aspect) if abs(aspect - 1) > 0.01 else frame.width
    rgb = frame.reformat(width=width, format="rgb24").to_ndarray()
    quarter_turns = round(frame.rotation / 90)
    # Rows may be padded in memory, and what takes the picture next (MediaPipe) would read the padding as pixels.
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns))
