"""Finds the talking face of a clip with MediaPipe's FaceLandmarker: one track of nine points and of the scores of its
movements (blendshapes), without holes, smoothed.

The nine points are those `crops.py` names; the model file is given by path or fetched once into the user's cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.crops import NUM_POINTS, apply, laid_onto
from data_prep.faults import SetupError, reason
from mmpretrain.files import whole_file
from mmpretrain.records import BLENDSHAPES, NUM_BLENDSHAPES

MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MODEL_ENV = "MMPRETRAIN_LANDMARKER"

MAX_FACES = 3
# Of MediaPipe's 478 mesh points, those nearest to our nine (see crops.py).
_MESH_POINTS = (33, 133, 362, 263, 2, 61, 291, 0, 17)
_EYES = (0, 3)  # outer corners: their distance is the size of a face
# A face goes on as the same one if it has moved less than this many eye distances since it was last seen.
_MAX_MOVE = 1.0
_SMOOTHING = np.array([1, 4, 6, 4, 1]) / 16  # binomial, 200 ms wide: takes the jitter, leaves the head's motion


@dataclasses.dataclass(frozen=True)
class FaceTrack:
    """The main face of a clip.

    points: float32 [T, 9, 2], x and y in pixels of the first picture, filled and smoothed; [0, 9, 2] without a face.
    blendshapes: float16 [T, 52], MediaPipe's scores from 0 to 1, filled and smoothed; [0, 52] if no face was found.
    detected: bool [T], False where both were filled in. num_faces: the most faces seen at once.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    detected: np.ndarray
    num_faces: int


NO_FACE = FaceTrack(
    np.zeros((0, NUM_POINTS, 2), np.float32), np.zeros((0, NUM_BLENDSHAPES), np.float16), np.zeros(0, bool), 0
)


class _Faces(NamedTuple):
    """The n faces in one picture: points float32 [n, 9, 2] in pixels of the first picture, blendshapes float32 [n, 52].

    shape: which of the picture shapes of the clip this is, counted from 0: in another one a face stands elsewhere.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    shape: int = 0


def track_face(frames: Iterable[tuple[np.ndarray, int]], model_path: Path) -> FaceTrack:
    """Follows the main face through the frames that `media.video_frames` gives.

    With several people it is the face that is large for long: the track with the greatest sum of eye distances.
    """
    faces_by_frame, counts = [], []
    for faces, count in _detect(frames, model_path):
        faces_by_frame.append(faces)
        counts.append(count)
    main = _main_face([faces.points for faces in faces_by_frame], counts, [faces.shape for faces in faces_by_frame])
    num_faces = max((len(faces.points) for faces in faces_by_frame), default=0)
    detected = np.repeat(main >= 0, counts)
    if not detected.any():
        return dataclasses.replace(NO_FACE, detected=detected, num_faces=num_faces)

    # In a picture of another shape the face stands elsewhere.
    jumps = np.flatnonzero(np.diff(np.repeat([faces.shape for faces in faces_by_frame], counts))) + 1

    def whole(name: str, dtype: type) -> np.ndarray:
        shown = [getattr(faces, name)[face] for faces, face in zip(faces_by_frame, main, strict=True) if face >= 0]
        known = np.zeros((len(main), *shown[0].shape))
        known[main >= 0] = shown
        filled = fill_gaps(np.repeat(known, counts, axis=0), detected)
        return np.concatenate([smooth(part) for part in np.split(filled, jumps)]).astype(dtype)

    return FaceTrack(whole("points", np.float32), whole("blendshapes", np.float16), detected, num_faces)


def fill_gaps(values: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """Values [T, ...] with the frames that are not `detected` [T] interpolated linearly, the ends copied outward."""
    frames, known = np.arange(len(values)), np.flatnonzero(detected)
    flat = values.reshape(len(values), -1)
    columns = [np.interp(frames, known, flat[known, column]) for column in range(flat.shape[1])]
    return np.stack(columns, axis=1).reshape(values.shape)


def smooth(values: np.ndarray) -> np.ndarray:
    """Values [T, ...] under a short binomial filter in time; the ends are repeated."""
    reach = len(_SMOOTHING) // 2
    padded = np.pad(values, ((reach, reach), *[(0, 0)] * (values.ndim - 1)), mode="edge")
    return sum(weight * padded[k : k + len(values)] for k, weight in enumerate(_SMOOTHING))


def eye_distance(points: np.ndarray) -> np.ndarray:
    """Distance between the outer eye corners in pixels, [...] for points [..., 9, 2]."""
    return np.linalg.norm(points[..., _EYES[1], :] - points[..., _EYES[0], :], axis=-1)


def _detect(frames, model_path: Path) -> Iterator[tuple[_Faces, int]]:
    """The faces of each distinct frame, and for how many frames of the clip it is shown."""
    # mediapipe takes seconds to import, and only processes that look for faces need it.
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=model_path.read_bytes()),
        running_mode=vision.RunningMode.VIDEO,
        num_faces=MAX_FACES,
        output_face_blendshapes=True,
    )
    try:
        made = vision.FaceLandmarker.create_from_options(options)
    except Exception as error:
        raise SetupError(f"--landmarker {model_path} cannot be used: {reason(error)}") from error
    tick, shape, size, first = 0, 0, None, None
    with made as landmarker:
        for rgb, count in frames:
            height, width = rgb.shape[:2]
            if size is not None and abs(width / height - size[1] / size[0]) > 0.02 * width / height:
                shape += 1
            size = (height, width)
            first = first or size
            found = landmarker.detect_for_video(mediapipe.Image(mediapipe.ImageFormat.SRGB, rgb), tick * 40)
            meshes = [
                [(face[i].x * width - 0.5, face[i].y * height - 0.5) for i in _MESH_POINTS]
                for face in found.face_landmarks
            ]
            named = [{category.category_name: category.score for category in face} for face in found.face_blendshapes]
            scores = [[face[name] for name in BLENDSHAPES] for face in named]
            yield (
                _Faces(
                    apply(laid_onto(size, first), np.reshape(meshes, (-1, NUM_POINTS, 2))).astype(np.float32),
                    np.array(scores, np.float32).reshape(-1, NUM_BLENDSHAPES),
                    shape,
                ),
                count,
            )
            tick += count


def _main_face(points_by_frame: list[np.ndarray], counts: list[int], shapes: list[int] | None = None) -> np.ndarray:
    """Joins faces over time, nearest first, and picks the main track: its face in each frame, int [F], -1 for none."""
    tracks: list[dict[int, int]] = []  # frame -> which of its faces
    for frame, faces in enumerate(points_by_frame):
        last = [points_by_frame[max(track)][track[max(track)]] for track in tracks]
        farthest = [_MAX_MOVE if shapes is None or shapes[max(t)] == shapes[frame] else np.inf for t in tracks]
        pairs = sorted(
            (np.linalg.norm(face.mean(0) - seen.mean(0)) / max(eye_distance(seen), 1.0), f, t)
            for f, face in enumerate(faces)
            for t, seen in enumerate(last)
        )
        new, free = set(range(len(faces))), set(range(len(tracks)))
        for move, f, t in pairs:
            if move <= farthest[t] and f in new and t in free:
                tracks[t][frame] = f
                new.remove(f)
                free.remove(t)
        tracks.extend({frame: f} for f in sorted(new))

    def size(track: dict[int, int]) -> float:
        return sum(eye_distance(points_by_frame[frame][f]) * counts[frame] for frame, f in track.items())

    main = np.full(len(points_by_frame), -1)
    for frame, f in max(tracks, key=size, default={}).items():
        main[frame] = f
    return main


def landmarker_model(given: str | None) -> Path:
    """The model file: `--landmarker`, else the environment's, else the user's cache, fetched there the first time.

    Raises FileNotFoundError or ValueError with the remedy.
    """
    given = given or os.environ.get(MODEL_ENV)
    if given:
        if not Path(given).is_file():
            raise FileNotFoundError(f"--landmarker {given} does not exist; give the path of face_landmarker.task")
        _check_bundle(Path(given), "give the path of a whole face_landmarker.task")
        return Path(given)
    cached = Path.home() / ".cache" / "mmpretrain" / "face_landmarker.task"
    if not cached.is_file():
        return _fetch(MODEL_URL, cached)
    _check_bundle(cached, "remove it, and it is fetched again")
    return cached


def _check_bundle(path: Path, remedy: str) -> None:
    """A model is a zip archive whose members have checksums."""
    try:
        with zipfile.ZipFile(path) as bundle:
            damaged = bundle.testzip()
    except Exception as error:  # whatever changed bytes bring about in zipfile and zlib
        if isinstance(error, OSError):
            raise
        raise ValueError(f"--landmarker {path} is no whole MediaPipe bundle ({error}); {remedy}") from None
    if damaged:
        raise ValueError(f"--landmarker {path} is damaged: {damaged} is not what was packed; {remedy}")


def _fetch(url: str, target: Path) -> Path:
    """Downloads the model, checks it, and only then puts it in its place."""
    remedy = f"download {url} elsewhere and give its path with --landmarker or {MODEL_ENV}"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content = response.read()
    except (urllib.error.URLError, OSError) as error:
        raise FileNotFoundError(f"the face landmarker cannot be fetched ({error}); {remedy}") from None
    if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
        raise ValueError(f"the face landmarker at {url} has another checksum than the one known to be good; {remedy}")
    with whole_file(target) as draft:
        draft.write_bytes(content)
    return target
