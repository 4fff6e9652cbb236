"""The clip processor: from a kept source clip and its landmarks to the clip that is written."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data_prep import media
from data_prep.accounting import UNEQUAL_SEC, ReportRow, span_of
from data_prep.crops import Crops, crop_clip
from data_prep.faults import ClipError, of_the_clip
from data_prep.hands import HandWatch
from data_prep.inspection import Inspection
from data_prep.landmark_cache import load_face, take_crops
from data_prep.measures import measures_of_crops
from data_prep.opening import open_clip
from data_prep.options import MAX_RECORD_BYTES, Options
from data_prep.sources import SourceClip
from data_prep.timed import tracks_of
from mmpretrain.features.hands import hands_seen
from mmpretrain.records import FRAME_RATE_HZ, SAMPLES_PER_FRAME, Clip

FEW_EMPTY = 0.02  # so many crops in which nothing is to be seen are not worth a note


@dataclasses.dataclass(frozen=True)
class Task:
    """One clip to be made. cache_file holds the landmarks of its file, of which frames first .. last - 1 are its own
    where it is cut to them (`span`). has_audio, has_video: what of it is kept."""

    clip: SourceClip
    cache_file: str
    has_audio: int
    has_video: int
    options: Options
    span: tuple[int, int] | None = None


def task_of(clip: SourceClip, found: Inspection, row: ReportRow, options: Options) -> Task:
    """What is to be made of a clip that is kept, by what was found in it and by its row."""
    span = span_of(found, options) if row.has_video and clip.render is None else None
    if span is None:
        return Task(clip, found.cache_file, row.has_audio, row.has_video, options)
    first_sec, last_sec = (round(clip.start_sec + frame / FRAME_RATE_HZ, 4) for frame in span)
    clip = clip.part(first_sec, last_sec)
    return Task(clip, found.cache_file, row.has_audio, row.has_video, options, span)


@dataclasses.dataclass(frozen=True)
class Made:
    """A clip as it is written, and what the report has to say of it. measures: of its crops, see `measures.py`."""

    clip: Clip
    note: str = ""
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict)


def make_clip(task: Task) -> Made | str:
    """Decodes (or draws) and crops one clip, or says why it cannot be done. Raises what `is_shortage` knows."""
    source = task.clip
    try:
        with of_the_clip():
            contents, note = (_undecoded(task), "") if source.path is None else _decode(task)
            described = {name: getattr(source, name) for name in ("clip_id", "split", "speaker", "labels")}
            clip = Clip(**described, **contents)
            _check_size(clip)
            return Made(clip, note, measures_of_crops(clip.mouth, clip.face) | _of_hands(clip))
    except ClipError as error:
        return str(error)


def _sizes(task: Task) -> dict[str, int]:
    return task.options.sizes


def _crops(task: Task, opened: media.Media, points: np.ndarray, hands: HandWatch | None) -> Crops:
    if task.options.made_at_once and not task.span and (crops := take_crops(task.cache_file, _sizes(task))):
        return crops
    frames = media.shown_frames(opened)
    return crop_clip(hands.watch(frames) if hands else frames, points, **_sizes(task), colour=task.options.colour)


def _hand_watch(task: Task, points: np.ndarray) -> contextlib.AbstractContextManager[HandWatch | None]:
    model = task.options.hand_landmarker
    return HandWatch(model, points) if model else contextlib.nullcontext()


def _of_hands(clip: Clip) -> dict[str, float]:
    hands = clip.tracks.get("hands")
    return {} if hands is None else {"hands_rate": round(float(hands_seen(hands).any(1).mean()), 4)}


def _check_size(clip: Clip) -> None:
    arrays = (clip.audio, clip.mouth, clip.face, *clip.tracks.values())
    if (size := sum(array.nbytes for array in arrays)) > MAX_RECORD_BYTES:
        raise ValueError(f"is too large for a record: {size / 1e9:.1f} GB of {MAX_RECORD_BYTES / 1e9:.1f}")


def _undecoded(task: Task) -> dict[str, Any]:
    """The contents of a clip that is drawn, or, where it is its text alone, none."""
    if task.clip.render is None:
        mouth, face = (np.zeros((0, size, size), np.uint8) for size in _sizes(task).values())
        return {"audio": np.zeros(0, np.int16), "mouth": mouth, "face": face, "info": task.clip.info}
    drawn = task.clip.render()
    mouth, face, *_ = crop_clip(drawn.frames, drawn.points, **_sizes(task))
    info = task.clip.info | drawn.info
    return {"audio": drawn.audio, "mouth": mouth, "face": face, "tracks": drawn.tracks, "info": info}


def _decode(task: Task) -> tuple[dict[str, Any], str]:
    """The clip's contents, and a note. Raises ValueError where its crops show nothing and there is no sound to keep."""
    opened, sound = open_clip(task.clip)
    mouth, face = (np.zeros((0, size, size), np.uint8) for size in _sizes(task).values())
    audio = np.zeros(0, np.int16)
    tracks, note = {}, ""
    if task.has_video:
        points, blendshapes = load_face(task.cache_file)
        kept = slice(*task.span) if task.span else slice(None)
        points, blendshapes = points[kept], blendshapes[kept]
        with _hand_watch(task, points) as hands:
            crops = _crops(task, opened, points, hands)
        empty = crops.empty.mean()
        said = f"{100 * empty:.0f} % of the crops are empty or outside of the picture"
        if empty <= 1 - task.options.min_face_rate:
            mouth, face, tracks = crops.mouth, crops.face, {"blendshapes": blendshapes}
            tracks |= (
                {"mouth_colour": crops.mouth_colour, "face_colour": crops.face_colour} if task.options.colour else {}
            )
            tracks |= {"hands": hands.features().astype(np.float16)} if hands else {}
            note = said if empty > FEW_EMPTY else ""
        elif task.has_audio:
            note = f"{said}; kept as sound only"
        else:
            raise ValueError(said)
    if task.has_audio:
        audio = media.audio_samples(sound, len(mouth) or None)
    said = task.clip
    num_frames = len(mouth) or -(-len(audio) // SAMPLES_PER_FRAME)
    tracks |= tracks_of(said.words, said.curves, said.start_sec, num_frames)
    info = said.info | ({"word_times": _times_of_words(said)} if said.words else {})
    note = "; ".join(filter(None, (note, *_beyond(said, tracks, num_frames))))
    return {"audio": audio, "mouth": mouth, "face": face, "tracks": tracks, "info": info}, note


def _beyond(clip: SourceClip, tracks: dict[str, np.ndarray], num_frames: int) -> Iterator[str]:
    """What the corpus says of times at which the clip is over."""
    end_sec = clip.start_sec + num_frames / FRAME_RATE_HZ
    if late := sum(word.start_sec > end_sec + UNEQUAL_SEC for word in clip.words):
        yield f"{late} of the {len(clip.words)} words are timed behind its end"
    for name in clip.curves:
        if np.isnan(tracks[name]).all():
            yield f"no value of {name} is of its time"


def _times_of_words(clip: SourceClip) -> list[list[Any]]:
    """[word, start_sec, end_sec] of each, from the beginning of the clip."""
    at = clip.start_sec
    return [[word.text, round(word.start_sec - at, 4), round(word.end_sec - at, 4)] for word in clip.words]
