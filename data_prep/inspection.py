"""The slow part of preparation: a clip is decoded, all of it, and its face is looked for. What is found so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import faces, media
from data_prep.crops import Crops, crop_clip
from data_prep.given_landmarks import faces_of_file
from data_prep.landmarker import eye_distance, find_faces
from data_prep.measures import SILENCE_DBFS, clipped, jitter_pct, loudness_dbfs
from data_prep.opening import open_clip
from data_prep.sources import SourceClip
from mmpretrain.records import FRAME_RATE_HZ

MIN_GAP = 5  # frames without the face: shorter gaps are not listed
KEPT_BYTES = 256_000_000  # of decoded pictures, in each process: one 720p clip of 7 s, one of 224 x 224 of two minutes


@dataclasses.dataclass(frozen=True)
class PictureFacts:
    """num_frames: pictures on the 25 Hz grid, 0 without a picture. fps, width, height: of the file. picture_lost: there
    is a track of pictures, but none could be decoded."""

    num_frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    picture_lost: bool = False


@dataclasses.dataclass(frozen=True)
class FaceFacts:
    """The face that is taken. faces: the most seen at once. face_rate: share of the frames in which it was found. gaps:
    the frames (first, last + 1) of each longer stretch without it. by_sound: its mouth clearly moves with the sound;
    evidence, rival: how much says so, of it and of the next face; lag_ms, confidence: how much later than the mouth the
    sound comes, and how clearly (see `speaking.Agreement`). jitter_pct: see `measures.py`."""

    faces: int = 0
    face_rate: float = 0.0
    eye_distance_px: float = 0.0
    gaps: tuple[tuple[int, int], ...] = ()
    by_sound: bool = False
    evidence: float = 0.0
    rival: float = 0.0
    lag_ms: int = 0
    confidence: float = 0.0
    jitter_pct: float = 0.0


@dataclasses.dataclass(frozen=True)
class SoundFacts:
    """num_samples: at 16 kHz, as much as there is, not cut to the picture. sound_from_sec: where it begins, from the
    clip's beginning. sample_rate, channels: of the file. loudness_dbfs, clipped: see `measures.py`. spoilt: samples
    that are no numbers."""

    num_samples: int = 0
    sound_from_sec: float = 0.0
    silent: bool = False
    sample_rate: int = 0
    channels: int = 0
    loudness_dbfs: float = SILENCE_DBFS
    clipped: int = 0
    spoilt: int = 0


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """How the file could be read, as `media.Media` has it. notes: what was chosen and mended while decoding."""

    declared_sec: float = 0.0
    damaged: int = 0
    dropped: int = 0
    restarts: int = 0
    still_sec: float = 0.0
    unread: float = 0.0
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What one clip holds, or, in `error`, why it cannot be read.

    again: the error is the machine's, not the file's, so that another run may do better. cache_file: where the
    landmarks are. cached: it was known before this run. remade: what was known is damaged, and it was looked at again.
    """

    picture: PictureFacts = PictureFacts()
    face: FaceFacts = FaceFacts()
    sound: SoundFacts = SoundFacts()
    file: FileFacts = FileFacts()
    error: str = ""
    again: bool = False
    cache_file: str = ""
    cached: bool = False
    remade: bool = False

    def facts(self) -> dict[str, Any]:
        """What the parts say, by the names of their fields, which no two of them share."""
        return {name: value for part in _PARTS for name, value in vars(getattr(self, part)).items()}

    @classmethod
    def of(cls, facts: Mapping[str, Any], **of_this_run: Any) -> Inspection:
        """From `facts`. Raises TypeError for a field that no part has."""
        left = dict(facts)
        parts = {
            name: kind(**{field.name: left.pop(field.name) for field in dataclasses.fields(kind) if field.name in left})
            for name, kind in _PARTS.items()
        }
        return cls(**parts, **left, **of_this_run)


_PARTS = {"picture": PictureFacts, "face": FaceFacts, "sound": SoundFacts, "file": FileFacts}


def look(
    clip: SourceClip, model: Path | None, every: int = 1, sizes: Mapping[str, int] | None = None
) -> tuple[Inspection, faces.FaceTrack, Crops | None]:
    """Decodes all of the clip. model, every, sizes: as `landmark_cache.inspect_clip` has them. Crops are made only with
    `sizes`, and where there is memory enough for the decoded pictures. Raises ValueError or OSError where nothing can
    be decoded."""
    opened, sound = open_clip(clip)
    if not opened.has_picture and not sound.has_sound:
        raise ValueError("has neither a picture nor sound that can be decoded")
    kept, crops = media.KeptFrames(KEPT_BYTES) if sizes else None, None
    track, audio = faces.NO_FACE, media.audio_samples(sound)
    if opened.has_picture and clip.landmarks:
        track = faces.track_face(faces_of_file(clip, media.video_frames(opened, kept=kept)), audio)
    elif opened.has_picture and model is not None:
        track = faces.track_face(find_faces(media.video_frames(opened, every, kept), model, clip.regions), audio)
    if len(audio) == 0 and len(track.detected) == 0 and clip.start_sec > 0:
        ends = f", and the file ends after {opened.file_sec:.1f} s" if opened.file_sec else ""
        raise ValueError(f"nothing is left of the part: it begins at {clip.start_sec:g} s{ends}")
    if len(audio) == 0 and len(track.detected) == 0:
        raise ValueError("has neither a picture nor sound that can be decoded")
    found = Inspection(_picture(opened, track), _face(track), _sound(sound, audio), _file(opened, sound))
    if kept is not None and kept.is_whole and len(track.points):
        crops = crop_clip(kept.shown(), track.points, **sizes)
    return found, track, crops


def _picture(opened: media.Media, track: faces.FaceTrack) -> PictureFacts:
    return PictureFacts(
        num_frames=len(track.detected),
        fps=round(opened.fps, 3),
        width=opened.width,
        height=opened.height,
        picture_lost=opened.picture_track and len(track.detected) == 0,
    )


def _face(track: faces.FaceTrack) -> FaceFacts:
    return FaceFacts(
        faces=track.num_faces,
        face_rate=round(float(track.detected.mean()), 4) if len(track.detected) else 0.0,
        eye_distance_px=round(float(np.median(eye_distance(track.points))), 1) if len(track.points) else 0.0,
        gaps=_gaps(track.detected) if len(track.points) else (),
        by_sound=track.by_sound,
        evidence=round(track.speaks.evidence, 2),
        rival=round(track.rival, 2),
        lag_ms=1000 * track.speaks.lag_frames // FRAME_RATE_HZ,
        confidence=round(track.speaks.confidence, 2),
        jitter_pct=jitter_pct(track.points),
    )


def _sound(sound: media.Media, audio: np.ndarray) -> SoundFacts:
    return SoundFacts(
        num_samples=len(audio),
        sound_from_sec=round(sound.sound_from_sec, 3),
        silent=media.is_silent(audio),
        sample_rate=sound.sample_rate,
        channels=sound.channels,
        loudness_dbfs=loudness_dbfs(audio),
        clipped=clipped(audio),
        spoilt=sound.spoilt,
    )


def _file(opened: media.Media, sound: media.Media) -> FileFacts:
    return FileFacts(
        declared_sec=round(opened.declared_sec, 3),
        damaged=opened.damaged + (sound.damaged if sound is not opened else 0),
        dropped=opened.dropped,
        restarts=opened.clock.num_restarts,
        still_sec=round(opened.still_sec, 3),
        unread=round(opened.unread, 3),
        notes=(*opened.notes, *sound.sound_notes),
    )


def _gaps(detected: np.ndarray) -> tuple[tuple[int, int], ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[1], detected, [1]])))
    return tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= MIN_GAP)
