"""Every person of a stretch of a recording: where each is, their crops, and the sound; for whoever wants no corpus.

A person is a track of one face, with no name: who comes back later may count as another.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep import media
from data_prep.accounting import UNEQUAL_SEC
from data_prep.crops import Cropper, face_boxes
from data_prep.crowd import find_everybody
from data_prep.faces import fill_gaps, follow, smooth
from data_prep.faults import ClipError, of_the_clip
from data_prep.landmarker import Faces
from data_prep.options import Options
from data_prep.sources import why_missing
from mmpretrain.records import SAMPLES_PER_FRAME

MIN_FRAMES = 12  # who is seen for less than half a second is nobody
SLACK_SEC = 5.0  # by which a file may be longer than it says
MAX_HOLE = 25  # frames: a track with a longer hole is two


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of a file. end_sec: None for its end. model: the landmarker with which people are looked for, at most
    `max_faces` at once; None: the sound alone is read."""

    path: Path
    start_sec: float
    end_sec: float | None
    options: Options
    model: Path | None
    max_faces: int


@dataclasses.dataclass(frozen=True)
class Person:
    """One person in a part. first: of the part's frames, the one in which they appear. boxes: float32 [T, 4], left,
    top, right, bottom of the face as shares of the picture. detected: bool [T], False where it was filled in. mouth,
    face: uint8 [T, S, S]."""

    first: int
    boxes: np.ndarray
    detected: np.ndarray
    mouth: np.ndarray
    face: np.ndarray


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a part holds. num_frames: of its picture, or of its sound where that goes on for long after it or there is
    no picture. audio: int16 [N], 640 a frame where there is a picture; empty where there is no sound or silence alone.
    error: why it cannot be read, or ""."""

    num_frames: int = 0
    has_picture: bool = False
    audio: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int16))
    people: tuple[Person, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """A file before it is decoded. seconds: by its packets, as far as it says that it is so long. width, height: as
    shown. error: why it cannot be read."""

    seconds: float = 0.0
    has_picture: bool = False
    has_sound: bool = False
    width: int = 0
    height: int = 0
    fps: float = 0.0
    error: str = ""


def look_into(path: Path) -> Facts:
    """Reads the packets of a file, and its first picture."""
    if why := why_missing(path):
        return Facts(error=why)
    try:
        with of_the_clip():
            opened = media.open_media(path)
            if not opened.has_picture and not opened.has_sound:
                raise ValueError("has neither a picture nor sound that can be decoded")
            seconds = max(0.0, opened.clock.end_sec - opened.origin_sec)
            if opened.file_sec:  # a packet's broken stamp may be days away
                seconds = min(seconds, opened.file_sec + SLACK_SEC)
            if seconds > media.limits.MAX_HOURS * 3600:
                raise ValueError(f"is {seconds / 3600:.1f} h long, more than {media.limits.MAX_HOURS:.0f} h: cut it")
            return Facts(seconds, opened.has_picture, opened.has_sound, opened.width, opened.height, opened.fps)
    except ClipError as error:
        return Facts(error=str(error))


def read_part(part: Part) -> Contents:
    """Decodes a part, finds and crops everybody in it. Raises what `is_shortage` knows and SetupError."""
    try:
        with of_the_clip():
            return _read(part)
    except ClipError as error:
        return Contents(error=str(error))


def _read(part: Part) -> Contents:
    opened = media.open_media(part.path, part.start_sec, part.end_sec)
    num_frames, people, notes = 0, (), list(opened.notes)
    if opened.has_picture and part.model is not None:
        found = list(find_everybody(media.video_frames(opened), part.model, part.max_faces + 1))
        num_frames = sum(count for _, count in found)
        if any(len(faces.points) > part.max_faces for faces, _ in found):
            notes.append(f"more than {part.max_faces} faces at once, of which the largest are followed")
        largest = [faces.first(part.max_faces) for faces, _ in found]
        people = _crops(opened, part, _tracks(largest, [count for _, count in found]))
    if opened.damaged:
        notes.append(f"{opened.damaged} damaged packets passed over")
    audio = media.audio_samples(opened)
    notes += opened.sound_notes
    has_picture, heard = num_frames > 0, -(-len(audio) // SAMPLES_PER_FRAME)
    if part.model is not None and opened.picture_track and heard - num_frames >= MIN_FRAMES:
        notes.append("where the picture has ended, or cannot be decoded, there is the sound alone")
    if part.start_sec == 0 and opened.has_picture and opened.sound_from_sec < -UNEQUAL_SEC:
        notes.append(
            f"the first {-opened.sound_from_sec:.1f} s of the sound, before the picture, are left out: times are from "
            "the first picture on"
        )
    num_frames = heard if heard - num_frames >= MIN_FRAMES or not has_picture else num_frames
    if has_picture and len(audio):
        audio = audio[: num_frames * SAMPLES_PER_FRAME]
        audio = np.pad(audio, (0, num_frames * SAMPLES_PER_FRAME - len(audio)))
    if len(audio) and media.is_silent(audio):
        audio = audio[:0]
    return Contents(num_frames, has_picture, audio, people, tuple(notes))


@dataclasses.dataclass(frozen=True)
class _Track:
    first: int
    points: np.ndarray
    detected: np.ndarray


def _tracks(pictures: Sequence[Faces], counts: Sequence[int]) -> list[_Track]:
    """Of everybody who is seen for long enough, in the order in which they appear."""
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    made = []
    for track in follow(pictures):
        for seen in _without_holes(sorted(track), starts):
            first, last = int(starts[seen[0]]), int(starts[seen[-1] + 1])
            frames = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in seen]) - first
            points, detected = (
                np.zeros((last - first, *pictures[seen[0]].points.shape[1:])),
                np.zeros(last - first, bool),
            )
            points[frames] = np.concatenate([np.repeat(pictures[k].points[track[k]][None], counts[k], 0) for k in seen])
            detected[frames] = True
            if detected.sum() < MIN_FRAMES:
                continue
            shapes = np.repeat([pictures[k].shape for k in range(seen[0], seen[-1] + 1)],
                               counts[seen[0] : seen[-1] + 1])  # fmt: skip
            parts = np.split(fill_gaps(points, detected), np.flatnonzero(np.diff(shapes)) + 1)
            smoothed = np.concatenate([smooth(each) for each in parts]).astype(np.float32)
            made.append(_Track(first, smoothed, detected))
    return sorted(made, key=lambda track: track.first)


def _without_holes(pictures: list[int], starts: np.ndarray) -> list[list[int]]:
    pieces = [[pictures[0]]]
    for before, now in itertools.pairwise(pictures):
        if starts[now] - starts[before + 1] > MAX_HOLE:
            pieces.append([])
        pieces[-1].append(now)
    return pieces


def _crops(opened: media.Media, part: Part, tracks: Sequence[_Track]) -> tuple[Person, ...]:
    """Goes through the pictures once more and cuts everybody out."""
    if not tracks:
        return ()
    size = (opened.height, opened.width)
    sizes = dict(mouth_size=part.options.mouth_size, face_size=part.options.face_size)
    croppers = [Cropper(track.points, first=size, **sizes) for track in tracks]
    for t, frame in enumerate(media.shown_frames(opened)):
        for track, cropper in zip(tracks, croppers, strict=True):
            if track.first <= t < track.first + len(track.points):
                cropper.add(frame)
    people = []
    for track, cropper in zip(tracks, croppers, strict=True):
        crops = cropper.crops()
        boxes = face_boxes(track.points) / np.array([size[1], size[0]] * 2, np.float32)
        people.append(Person(track.first, boxes, track.detected & ~crops.empty, crops.mouth, crops.face))
    return tuple(people)
