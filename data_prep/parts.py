"""Cuts long files into clips at pauses of the voice, before anything is looked at.

A lecture of an hour is no clip: its crops would not fit into one record, and no batch could hold it.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from tqdm import tqdm

from data_prep import media
from data_prep.faults import ClipError, of_the_clip
from data_prep.landmark_cache import patience_sec
from data_prep.opening import open_clip
from data_prep.sources import SourceClip
from data_prep.workers import Failed, OrderedMap
from mmpretrain.records import FRAME_RATE_HZ, SAMPLES_PER_FRAME

PAUSE_FRAMES = 8  # a pause is the quietest stretch of so many frames (0.32 s)

Span = tuple[float, float | None]  # a part of a file in seconds, as `SourceClip.start_sec` and `end_sec`


@dataclasses.dataclass(frozen=True)
class Cut:
    """A source clip that is too long, and the clips that it became."""

    whole: SourceClip
    seconds: float
    parts: list[SourceClip]


def cut_long_clips(
    clips: list[SourceClip], max_sec: float, run: OrderedMap
) -> tuple[list[SourceClip], dict[str, Cut], dict[str, Failed]]:
    """The clips with those longer than `max_sec` replaced by their parts; what was cut, and what took its process with
    it, by clip id.

    A part is called ID-part01, ID-part02, ...; it has the labels of the whole, but of its text the words that are known
    to be spoken then. Parts follow each other without a gap, each from max_sec / 4 to max_sec long. A file that cannot
    be read is left as it is: looking at it will say why.
    """
    todo = [clip for clip in clips if _may_be_long(clip, max_sec)]
    if not todo:
        return clips, {}, {}
    look = functools.partial(find_spans, max_sec=max_sec)
    patience = functools.partial(patience_sec, max_clip_sec=max_sec)
    cuts, failed = {}, {}
    with tqdm(total=len(todo), desc="looking for long files", unit="clip", disable=None) as bar:
        for clip, spans in run(look, todo, patience_sec=patience):
            if isinstance(spans, Failed):
                failed[clip.clip_id] = spans
            elif spans:
                cuts[clip.clip_id] = cut_at(clip, *spans)
            bar.update()
    made = [part for clip in clips for part in (cuts[clip.clip_id].parts if clip.clip_id in cuts else [clip])]
    taken = {clip.clip_id for clip in clips}
    if doubles := sorted({part.clip_id for cut in cuts.values() for part in cut.parts} & taken):
        raise ValueError(
            f"clip {doubles[0]!r} has the name of a part of a long clip that is cut; rename it, or let --max-clip-sec "
            "be longer"
        )
    return made, cuts, failed


def find_spans(clip: SourceClip, max_sec: float) -> tuple[float, list[Span]] | None:
    """The clip's length in seconds and the parts to cut it into; None if it is short enough or cannot be read."""
    try:
        with of_the_clip():
            opened, sound = open_clip(clip)
            if 0 < opened.declared_sec <= max_sec:
                return None
            audio = media.audio_samples(sound)
    except ClipError:
        return None
    num_frames = -(-len(audio) // SAMPLES_PER_FRAME)
    if opened.has_picture:  # it may go on without sound, but not beyond its packets, whatever is declared
        picture_sec = min(opened.clock.end_sec, opened.end_sec) - opened.origin_sec
        picture_sec = min(picture_sec, opened.declared_sec or math.inf, media.limits.MAX_HOURS * 3600)
        num_frames = max(num_frames, round(picture_sec * FRAME_RATE_HZ))
    if num_frames <= max_sec * FRAME_RATE_HZ:
        return None
    cuts = [frame / FRAME_RATE_HZ for frame in pauses(audio, num_frames, int(max_sec * FRAME_RATE_HZ))]
    edges = [clip.start_sec, *(round(clip.start_sec + cut, 4) for cut in cuts)]
    return num_frames / FRAME_RATE_HZ, list(zip(edges, [*edges[1:], clip.end_sec], strict=True))


def pauses(audio: np.ndarray, num_frames: int, max_frames: int) -> list[int]:
    """Frames at which `num_frames` frames are cut so that no part is longer than `max_frames`, or a quarter as short.

    audio: int16 [N] of the same frames, at 16 kHz; where it ends there is silence. Each cut is in the middle of the
    quietest `PAUSE_FRAMES` of where it may be; of equally quiet ones the last.
    """
    energy_T = np.zeros(num_frames)
    whole = len(audio) // SAMPLES_PER_FRAME
    sound = audio[: whole * SAMPLES_PER_FRAME].reshape(whole, SAMPLES_PER_FRAME)[:num_frames]
    energy_T[: len(sound)] = [np.square(frame, dtype=np.float64).sum() for frame in sound]
    level_T = np.convolve(energy_T, np.ones(PAUSE_FRAMES), "same")
    cuts, start = [], 0
    while num_frames - start > max_frames:
        # Never so late that what is left is a crumb.
        first, last = start + max_frames // 2, min(start + max_frames, num_frames - max_frames // 4)
        quietest = np.flatnonzero(level_T[first : last + 1] <= level_T[first : last + 1].min())[-1]
        start = first + int(quietest)
        cuts.append(start)
    return cuts


def _may_be_long(clip: SourceClip, max_sec: float) -> bool:
    if clip.refused or clip.render is not None or clip.path is None:
        return False
    return clip.end_sec is None or clip.end_sec - clip.start_sec > max_sec


def cut_at(clip: SourceClip, seconds: float, spans: list[Span]) -> Cut:
    """The clip of that length in its parts, named and described."""
    parts = []
    for number, (start, end) in enumerate(spans, start=1):
        note = f"part {number} of {len(spans)} of {clip.clip_id} (from {start:.2f} s)"
        note += ", without its text" if clip.labels.get("text") and not clip.words else ""
        note = "; ".join(filter(None, [clip.note, note]))
        parts.append(clip.part(start, end, clip_id=f"{clip.clip_id}-part{number:02d}", note=note))
    return Cut(clip, seconds, parts)
