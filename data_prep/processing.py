"""The clip processor: from a kept source clip and its landmarks to the clip that is written."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from data_prep import media
from data_prep.crops import crop_clip
from data_prep.inspection import load_face
from data_prep.sources import SourceClip
from mmpretrain.records import Clip


@dataclasses.dataclass(frozen=True)
class Task:
    """One clip to be made. cache_file holds its landmarks; has_audio, has_video: what of it is kept."""

    clip: SourceClip
    cache_file: str
    has_audio: int
    has_video: int
    mouth_size: int
    face_size: int


def make_clip(task: Task) -> Clip | str:
    """Decodes (or draws) and crops one clip, or says why it cannot be done."""
    source = task.clip
    try:
        contents = _draw(task) if source.render is not None else _decode(task)
    except media.DECODING_ERRORS as error:
        return str(error) or type(error).__name__
    described = {name: getattr(source, name) for name in ("clip_id", "split", "speaker", "labels")}
    return Clip(**described, **contents)


def _draw(task: Task) -> dict[str, Any]:
    drawn = task.clip.render()
    mouth, face = crop_clip(drawn.frames, drawn.points, mouth_size=task.mouth_size, face_size=task.face_size)
    info = task.clip.info | drawn.info
    return {"audio": drawn.audio, "mouth": mouth, "face": face, "tracks": drawn.tracks, "info": info}


def _decode(task: Task) -> dict[str, Any]:
    opened = media.open_media(task.clip.path, task.clip.start_sec, task.clip.end_sec)
    mouth = np.zeros((0, task.mouth_size, task.mouth_size), np.uint8)
    face = np.zeros((0, task.face_size, task.face_size), np.uint8)
    audio = np.zeros(0, np.int16)
    tracks = {}
    if task.has_video:
        points, tracks["blendshapes"] = load_face(task.cache_file)
        mouth, face = crop_clip(
            media.shown_frames(opened), points, mouth_size=task.mouth_size, face_size=task.face_size
        )
    if task.has_audio:
        audio = media.audio_samples(opened, len(mouth) if task.has_video else None)
    return {"audio": audio, "mouth": mouth, "face": face, "tracks": tracks, "info": task.clip.info}
