"""MediaPipe's FaceLandmarker: its model file, and the faces that it finds in each picture of a clip.

The model is given by path or fetched once into the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data_prep.crops import NUM_POINTS, STABLE, apply, grey, laid_onto
from data_prep.faults import SetupError, reason
from data_prep.sources import WHOLE, Region
from mmpretrain.files import whole_file
from mmpretrain.records import BLENDSHAPES, NUM_BLENDSHAPES

MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MODEL_ENV = "MMPRETRAIN_LANDMARKER"

MAX_FACES = 3
# Of MediaPipe's 478 mesh points, those nearest to our nine (see crops.py), and the edges of the lips that meet.
MESH_POINTS = (33, 133, 362, 263, 2, 61, 291, 0, 17)
MESH_LIPS = (13, 14)
EYES = (0, 3)  # outer corners, of the nine: their distance is the size of a face

# What tells people apart from one picture to the next: eyes and nose, so small that a breath changes nothing.
_LOOK_SIDE = 16
_THUMBNAIL = (32, 32)  # of the whole picture, to see where a shot begins


class Faces(NamedTuple):
    """The n faces in one picture: points float32 [n, 9, 2] in pixels of the first picture, blendshapes float32 [n, 52]
    or [n, 0] where they are not known.

    opening: how far the lips are apart, in eye distances [n]. looks: eyes and nose as vectors of length 1,
    float32 [n, 256], whose product is 1 for the same look. shape: which of the picture shapes of the clip this is,
    counted from 0: in another one a face stands elsewhere. change: by how many grey levels the picture differs from
    the one before it.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    opening: np.ndarray
    looks: np.ndarray
    shape: int = 0
    change: float = 0.0

    def first(self, count: int) -> Faces:
        """That many of them."""
        return self._replace(
            points=self.points[:count], blendshapes=self.blendshapes[:count], opening=self.opening[:count],
            looks=self.looks[:count],
        )  # fmt: skip


def eye_distance(points: np.ndarray) -> np.ndarray:
    """Distance between the outer eye corners in pixels, [...] for points [..., 9, 2]."""
    return np.linalg.norm(points[..., EYES[1], :] - points[..., EYES[0], :], axis=-1)


def find_faces(
    frames: Iterable[tuple[np.ndarray | None, int]],
    model_path: Path,
    regions: Sequence[Region] = (),
    *,
    num_faces: int = MAX_FACES,
) -> Iterator[tuple[Faces | None, int]]:
    """The faces of each distinct frame, None where that is None, and for how many frames of the clip it is shown.

    regions: the parts of the picture that are looked at, each for up to `MAX_FACES`; all of it without any. A face is
    found more easily in a part, as it is larger there. Raises SetupError for a model that cannot be used.
    """
    regions = regions or (WHOLE,)
    with contextlib.ExitStack() as stack:
        looks = [stack.enter_context(Looking(model_path, region, num_faces)) for region in regions]
        pictures, tick = Pictures(), 0
        for rgb, count in frames:
            if rgb is None:
                yield None, count
            else:
                yield pictures.of_meshes(rgb, [mesh for look in looks for mesh in look.meshes(rgb, tick)]), count
            tick += count


class Mesh(NamedTuple):
    """A face: points [478, 2] in pixels of the picture, and blendshapes [52]."""

    points: np.ndarray
    blendshapes: np.ndarray


class Looking:
    """Looks for faces in a region of pictures; closed when it is left.

    follows: they are of one video, in which faces are followed; otherwise each is looked at for itself. Raises
    SetupError for a model that cannot be used.
    """

    def __init__(self, model_path: Path, region: Region, num_faces: int, *, follows: bool = True):
        # mediapipe takes seconds to import, and only processes that look for faces need it.
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self.region, self._follows, self._mediapipe = region, follows, mediapipe
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=model_path.read_bytes()),
            running_mode=vision.RunningMode.VIDEO if follows else vision.RunningMode.IMAGE,
            num_faces=num_faces,
            output_face_blendshapes=True,
        )
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except Exception as error:
            raise SetupError(f"--landmarker {model_path} cannot be used: {reason(error)}") from error

    def __enter__(self) -> Looking:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Once or again."""
        if self._landmarker is not None:
            self._landmarker.close()
        self._landmarker = None

    def meshes(self, rgb: np.ndarray, tick: int, region: Region | None = None) -> list[Mesh]:
        """The faces in a picture, RGB uint8 [H, W, 3]. tick: frame of the clip, always a later one where faces are
        followed. region: in place of its own."""
        part, corner = within(rgb, region or self.region)
        picture = self._mediapipe.Image(self._mediapipe.ImageFormat.SRGB, part)
        if self._follows:
            found = self._landmarker.detect_for_video(picture, tick * 40)
        else:
            found = self._landmarker.detect(picture)
        height, width = part.shape[:2]
        made = []
        for face, scores in zip(found.face_landmarks, found.face_blendshapes, strict=True):
            named = {category.category_name: category.score for category in scores}
            points = np.array([(point.x * width - 0.5, point.y * height - 0.5) for point in face]) + corner
            made.append(Mesh(points, np.array([named[name] for name in BLENDSHAPES], np.float32)))
        return made


def within(rgb: np.ndarray, region: Region) -> tuple[np.ndarray, tuple[int, int]]:
    """A region of a picture [H, W, 3], and the pixel (x, y) of the picture at its corner."""
    if region == WHOLE:
        return rgb, (0, 0)
    (height, width), (left, top, right, bottom) = rgb.shape[:2], region
    x, y = round(left * width), round(top * height)
    return np.ascontiguousarray(rgb[y : round(bottom * height), x : round(right * width)]), (x, y)


class Pictures:
    """Goes through the pictures of a clip and describes their faces."""

    def __init__(self) -> None:
        self._first = self._size = self._thumbnail = None
        self._shape = 0

    def of_meshes(self, rgb: np.ndarray, meshes: Sequence[Mesh]) -> Faces:
        """`faces` of what was found in the picture."""
        nine = [mesh.points[list(MESH_POINTS)] for mesh in meshes]
        lips = [mesh.points[list(MESH_LIPS)] for mesh in meshes]
        blendshapes = np.array([mesh.blendshapes for mesh in meshes], np.float32).reshape(-1, NUM_BLENDSHAPES)
        return self.faces(rgb, nine, lips, blendshapes)

    def faces(
        self, rgb: np.ndarray, nine: Sequence[np.ndarray], lips: Sequence[np.ndarray], blendshapes: np.ndarray
    ) -> Faces:
        """Of the next picture, RGB uint8 [H, W, 3]. nine: of each face the points [9, 2] of `crops.py` in its pixels.
        lips: of each face two points [2, 2] on the edges of the lips that meet."""
        height, width = size = rgb.shape[:2]
        before, self._thumbnail = self._thumbnail, cv2.resize(rgb, _THUMBNAIL, interpolation=cv2.INTER_AREA).mean(-1)
        if self._size and abs(width / height - self._size[1] / self._size[0]) > 0.02 * width / height:
            self._shape, before = self._shape + 1, None
        self._size, self._first = size, self._first or size
        points = np.reshape(nine, (-1, NUM_POINTS, 2)).astype(np.float32)
        apart = np.linalg.norm(np.diff(np.reshape(lips, (-1, 2, 2)), axis=1)[:, 0], axis=-1)
        return Faces(
            apply(laid_onto(size, self._first), points).astype(np.float32),
            blendshapes,
            apart / np.maximum(eye_distance(points), 1.0),
            np.array([_look(rgb, face) for face in points], np.float32).reshape(-1, _LOOK_SIDE**2),
            self._shape,
            0.0 if before is None else float(np.abs(self._thumbnail - before).mean()),
        )


def _look(rgb: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Eyes and nose on a square that is upright in the picture."""
    (x, y), half = points[STABLE].mean(0), max(0.8 * float(eye_distance(points)), 2.0)
    top, left = max(round(y - half), 0), max(round(x - half), 0)
    patch = rgb[top : max(round(y + half), 0), left : max(round(x + half), 0)]
    if not patch.size:
        return np.zeros(_LOOK_SIDE**2, np.float32)
    look = cv2.resize(grey(patch), (_LOOK_SIDE, _LOOK_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    look -= look.mean()
    return look / max(float(np.linalg.norm(look)), 1e-6)


def landmarker_model(given: str | None) -> Path:
    """The model file: `--landmarker`, else the environment's, else the user's cache, fetched there the first time.

    Raises FileNotFoundError or ValueError with the remedy.
    """
    by, path = ("--landmarker", given) if given else (f"${MODEL_ENV}", os.environ.get(MODEL_ENV))
    if path:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{by} {path} does not exist; give the path of face_landmarker.task")
        check_bundle(Path(path), by, "give the path of a whole face_landmarker.task")
        return Path(path)
    cached = Path.home() / ".cache" / "mmpretrain" / "face_landmarker.task"
    if not cached.is_file():
        return _fetch(MODEL_URL, cached)
    check_bundle(cached, "--landmarker", "remove it, and it is fetched again")
    return cached


def check_bundle(path: Path, flag: str, remedy: str) -> None:
    """A model is a zip archive whose members have checksums."""
    try:
        with zipfile.ZipFile(path) as bundle:
            damaged = bundle.testzip()
    except Exception as error:  # whatever changed bytes bring about in zipfile and zlib
        if isinstance(error, OSError):
            raise
        raise ValueError(f"{flag} {path} is no whole MediaPipe bundle ({error}); {remedy}") from None
    if damaged:
        raise ValueError(f"{flag} {path} is damaged: {damaged} is not what was packed; {remedy}")


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
