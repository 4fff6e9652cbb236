"""The slow part of preparation, once per clip: decode all of it and find the face. What was found is kept in a cache
under the content of the file, so that no run and no other setting ever looks at the same clip twice."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep import faces, media
from data_prep.crops import Crops, crop_clip
from data_prep.faults import ClipError, is_shortage, of_the_clip, reason
from data_prep.given_landmarks import faces_of_file
from data_prep.landmarker import eye_distance, find_faces
from data_prep.measures import SILENCE_DBFS, clipped, jitter_pct, loudness_dbfs
from data_prep.opening import open_clip
from data_prep.sources import SourceClip
from mmpretrain.files import DamagedError, read_arrays, write_arrays
from mmpretrain.records import FRAME_RATE_HZ

MIN_GAP = 5  # frames without the face: shorter gaps are not listed
_OF_THIS_RUN = ("cache_file", "cached", "remade", "again")
KEPT_BYTES = 256_000_000  # of decoded pictures, in each process: one 720p clip of 7 s, one of 224 x 224 of two minutes
VERSION = 10  # of what an inspection finds: raised when a change here would find something else


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What one clip holds. error: why it cannot be read, or "". cached: whether it was known before this run.
    remade: whether what was known is damaged, so that it was looked at again. again: the error is the machine's, not
    the file's, so that another run may do better.

    num_frames: pictures on the 25 Hz grid, 0 without a picture. num_samples: of sound at 16 kHz (as much as there is,
    not cut to the picture). sound_from_sec: where it begins, from the clip's beginning. faces: the most seen at once.
    face_rate: share of the frames in which the face that is taken was found. gaps: the frames (first, last + 1) of each
    longer stretch without it. by_sound: its mouth clearly moves with the sound; evidence, rival: how much says so, of
    it and of the next face; lag_ms, confidence: how much later than the mouth the sound comes, and how clearly (see
    `speaking.Agreement`). jitter_pct, loudness_dbfs, clipped: see `measures.py`; spoilt: samples that are no numbers.
    picture_lost: there is a track of pictures, but none could be decoded. damaged, dropped, restarts, still_sec,
    unread: see `media.Media`. notes: what was chosen and
    mended while decoding. cache_file: where the landmarks are.
    """

    cache_file: str = ""
    cached: bool = False
    remade: bool = False
    again: bool = False
    error: str = ""
    num_frames: int = 0
    num_samples: int = 0
    sound_from_sec: float = 0.0
    silent: bool = False
    fps: float = 0.0
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    declared_sec: float = 0.0
    damaged: int = 0
    picture_lost: bool = False
    dropped: int = 0
    restarts: int = 0
    still_sec: float = 0.0
    unread: float = 0.0
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
    loudness_dbfs: float = SILENCE_DBFS
    clipped: int = 0
    spoilt: int = 0
    notes: tuple[str, ...] = ()


def inspect_clip(
    clip: SourceClip,
    *,
    cache_dir: Path,
    model: Path | None,
    model_hash: str,
    every: int = 1,
    sizes: Mapping[str, int] | None = None,
) -> Inspection:
    """What the clip holds, from the cache if it is there. Files that are broken are remembered too.

    model may be None only where no file has a picture; the landmarks are then left out. every: of so many pictures
    one is looked at for faces. sizes: of the crops, as `crop_clip` takes them, if they are to be made at once, while
    the decoded pictures are at hand, and kept for `take_crops`; what takes too much memory for that is decoded again
    later. Raises SetupError, OSError where the cache cannot be read or written, and what `is_shortage` knows.
    """
    try:
        key = _key(clip, model_hash, every)
    except OSError as error:
        if is_shortage(error):
            raise
        return Inspection(error=reason(error), again=True)
    cache_file = cache_dir / key[:2] / f"{key}.npz"
    remade = False
    try:
        return load_inspection(cache_file)
    except FileNotFoundError:
        pass
    except DamagedError:
        remade = True
    try:
        with of_the_clip():
            found, track, crops = _look(clip, model, every, sizes)
    except ClipError as error:
        found, track, crops = Inspection(error=str(error)), faces.NO_FACE, None
        if not error.lasting:
            return found
    if crops is not None:  # first: once the landmarks are there nobody makes them
        write_arrays(_crops_file(cache_file), mouth=crops.mouth, face=crops.face, empty=crops.empty)
    facts = {name: value for name, value in dataclasses.asdict(found).items() if name not in _OF_THIS_RUN}
    write_arrays(
        cache_file, facts=json.dumps(facts), points=track.points, blendshapes=track.blendshapes,
        detected=track.detected,
    )  # fmt: skip
    return dataclasses.replace(found, cache_file=str(cache_file), remade=remade)


def patience_sec(clip: SourceClip, max_clip_sec: float) -> float:
    """How long looking at a clip, or making it, may take: many times what the slowest should."""
    with contextlib.suppress(OSError, AttributeError):
        return 600 + 10 * max_clip_sec + clip.path.stat().st_size / 1e6
    return 600 + 10 * max_clip_sec


def load_inspection(cache_file: Path) -> Inspection:
    """What was found earlier. Raises FileNotFoundError, or DamagedError."""
    facts = str(read_arrays(cache_file, "facts", "points", "blendshapes", "detected")["facts"])
    try:
        return Inspection(cache_file=str(cache_file), cached=True, **json.loads(facts))
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{cache_file} is damaged ({error})") from error


def load_face(cache_file: str) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks, float32 [T, 9, 2], and blendshapes, float16 [T, 52], of the main face."""
    arrays = read_arrays(cache_file, "points", "blendshapes")
    return arrays["points"], arrays["blendshapes"]


def take_crops(cache_file: str, sizes: Mapping[str, int]) -> Crops | None:
    """The crops of these sizes that were made when the clip was looked at, once: they are removed. None without."""
    path = _crops_file(Path(cache_file))
    try:
        crops = Crops(**read_arrays(path, "mouth", "face", "empty"))
    except (FileNotFoundError, DamagedError):
        return None
    path.unlink()
    return crops if [crops.mouth.shape[1], crops.face.shape[1]] == list(sizes.values()) else None


def _crops_file(cache_file: Path) -> Path:
    return cache_file.with_suffix(".crops")


def _look(
    clip: SourceClip, model: Path | None, every: int, sizes: Mapping[str, int] | None
) -> tuple[Inspection, faces.FaceTrack, Crops | None]:
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
    found = Inspection(
        num_frames=len(track.detected),
        num_samples=len(audio),
        sound_from_sec=round(sound.sound_from_sec, 3),
        silent=media.is_silent(audio),
        fps=round(opened.fps, 3),
        width=opened.width,
        height=opened.height,
        sample_rate=sound.sample_rate,
        channels=sound.channels,
        declared_sec=round(opened.declared_sec, 3),
        damaged=opened.damaged + (sound.damaged if sound is not opened else 0),
        picture_lost=opened.picture_track and len(track.detected) == 0,
        dropped=opened.dropped,
        restarts=opened.clock.num_restarts,
        still_sec=round(opened.still_sec, 3),
        unread=round(opened.unread, 3),
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
        loudness_dbfs=loudness_dbfs(audio),
        clipped=clipped(audio),
        spoilt=sound.spoilt,
        notes=(*opened.notes, *sound.sound_notes),
    )
    if kept is not None and kept.is_whole and len(track.points):
        crops = crop_clip(kept.shown(), track.points, **sizes)
    return found, track, crops


def _gaps(detected: np.ndarray) -> tuple[tuple[int, int], ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[1], detected, [1]])))
    return tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= MIN_GAP)


def _key(clip: SourceClip, model_hash: str, every: int) -> str:
    parts = [VERSION, _content_hash(clip.path), clip.start_sec, clip.end_sec, model_hash]
    parts += [_content_hash(clip.sound.path), clip.sound.start_sec] if clip.sound else []
    parts += [clip.regions] if clip.regions else []
    parts += [every] if every > 1 else []
    parts += [_content_hash(clip.landmarks.path), clip.landmarks.from_sec] if clip.landmarks else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@functools.lru_cache(maxsize=16)  # the parts of one file come one after the other
def _content_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
