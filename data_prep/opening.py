"""Opens the file of a clip, and that of its sound where it has one of its own."""

from __future__ import annotations

from data_prep import media
from data_prep.sources import SourceClip


def open_clip(clip: SourceClip) -> tuple[media.Media, media.Media]:
    """Where the picture is, and where the sound is: the same, or two files of which both begin with the clip.

    Raises what `media.open_media` raises.
    """
    opened = media.open_media(clip.path, clip.start_sec, clip.end_sec)
    if clip.sound is None:
        return opened, opened
    start_sec = clip.sound.start_sec
    end_sec = None if clip.end_sec is None else start_sec + clip.end_sec - clip.start_sec
    return opened, media.open_media(clip.sound.path, start_sec, end_sec)
