"""Long clips in overlapping windows, so that the memory of a pass does not grow with the length of a clip.

A frame's values are taken from the window in which it is farther from an edge: an encoder that sees a window instead of
the whole clip says nearly the same of a frame that has enough of the clip on both sides. How nearly: docs/training.md.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

WINDOW_FRAMES = 1500  # one minute; shorter clips are whole. Preparation cuts files at this length by default
OVERLAP_FRAMES = 250  # hence 5 s of context on both sides of every frame, where the clip has them


class Window(NamedTuple):
    """A stretch of a clip, and the part of it that is taken from this window: frames of the clip."""

    frames: range
    own: range


def windows(num_frames: int) -> list[Window]:
    """Windows of at most `WINDOW_FRAMES` over a clip; what they own adds up to the clip, in order.

    All but a single one are of `WINDOW_FRAMES`; the last ends with the clip, hence may overlap more.
    """
    if num_frames <= WINDOW_FRAMES:
        return [Window(range(num_frames), range(num_frames))]
    last = num_frames - WINDOW_FRAMES
    starts = [*range(0, last, WINDOW_FRAMES - OVERLAP_FRAMES), last]
    # Two neighbours meet in the middle of what both see.
    edges = [0, *((b + a + WINDOW_FRAMES) // 2 for a, b in itertools.pairwise(starts)), num_frames]
    return [
        Window(range(start, start + WINDOW_FRAMES), range(first, after))
        for start, first, after in zip(starts, *zip(*itertools.pairwise(edges), strict=True), strict=True)
    ]
