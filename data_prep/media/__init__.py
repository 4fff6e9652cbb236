"""Decodes picture and sound with PyAV onto one clock: frames at 25 fps and mono samples at 16 kHz, from the same 0.

The clock starts at the first picture (and a part of a file `start_sec` after it), so that a sound track that starts
later is padded and one that starts earlier is cut. Frames are placed by their time stamps, never by counting.
"""

from __future__ import annotations

import math
from pathlib import Path

from data_prep.media import limits, riff
from data_prep.media.clock import clock_of
from data_prep.media.container import MAX_GAP_SEC, Media, decode, open_container
from data_prep.media.picture import (
    KeptFrames,
    has_picture_track,
    picture_stream,
    picture_streams,
    pixel_aspect,
    shown_frames,
    upright,
    video_frames,
)
from data_prep.media.sound import audio_samples, is_silent, sound_streams

__all__ = ["KeptFrames", "Media", "audio_samples", "is_silent", "open_media", "shown_frames", "video_frames"]

MIN_UNREAD_BYTES = 16_000  # less behind the last packet is what formats keep there: an index, descriptions
LATEST_SEC = 1e6  # of a part of a file that does not say how long it is


def open_media(path: Path, start_sec: float = 0.0, end_sec: float | None = None) -> Media:
    """Looks into a file. Raises ValueError or OSError, in a few words, if it cannot be read.

    start_sec, end_sec: a part of it, on the clock of the whole, so that it is what one would cut out of the whole.
    """
    clock = clock_of(path)
    with open_container(path) as container:
        picture, sounds = picture_stream(container), sound_streams(container)
        begin = (container.start_time or 0) / 1e6
        declared = (container.duration or 0) / 1e6
        if clock.shifts:  # what is declared is of the first of the recordings
            begin = max(begin, clock.begin_sec)
            declared = clock.end_sec - begin
        if start_sec > (2 * declared + MAX_GAP_SEC if declared else LATEST_SEC):  # what is declared may be an estimate
            known = f", beyond its end at {declared:.1f} s" if declared else ""
            raise ValueError(f"start_sec {start_sec:g} is no time of this file{known}; times are in seconds")
        media = Media(path, False, bool(sounds), clock, begin, math.inf, file_sec=declared)
        media.picture_track = has_picture_track(container)
        if sounds:
            media.sample_rate, media.channels = sounds[0].rate or 0, sounds[0].channels or 0
            limits.check_sound(media.sample_rate, media.channels)
        if picture is not None:
            if len(pictures := picture_streams(container)) > 1:
                media.notes = (f"picture track {pictures.index(picture) + 1} of {len(pictures)} is taken",)
            limits.check_picture(picture.codec_context.width, picture.codec_context.height, pixel_aspect(picture))
            first = next(decode(container, picture, media), None)
            if first is not None:
                media.origin_sec, frame = first
                media.has_picture = True
                media.fps = float(picture.average_rate or 0)
                media.height, media.width = upright(frame, pixel_aspect(picture)).shape[:2]
        if media.has_picture:
            media.damaged = 0  # they are counted when all is read
        media.dropped = 0
        if end_sec is not None:
            media.end_sec = media.origin_sec + end_sec
        claimed = max(declared, riff.cut_off_sec(path))
        media.declared_sec = max(0.0, min(claimed, media.end_sec - media.origin_sec) - start_sec)
        media.origin_sec += start_sec
        taken = [clock.last_byte.get(stream.index, 0.0) for stream in (picture, *sounds) if stream is not None]
        if (1 - max(taken, default=1.0)) * path.stat().st_size > MIN_UNREAD_BYTES:
            media.unread = 1 - max(taken)
    return media
