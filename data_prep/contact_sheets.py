"""Pictures of clips for the report's page: frames with the landmarks and the crops that were taken of them."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np

from data_prep import media
from data_prep.crops import FACE_SQUARE, MEAN_FACE, STABLE, Square, align, crop_clip, mouth_squares
from data_prep.crops import MOUTH as MOUTH_POINTS
from data_prep.faults import ClipError, of_the_clip
from data_prep.landmark_cache import load_face
from data_prep.landmarker import eye_distance
from data_prep.opening import open_clip
from data_prep.sources import SourceClip

FRAMES_SHOWN = 3
HEIGHT = 170  # pixels of a frame on the sheet
_AROUND = 4.0  # eye distances: the side of what is shown around a face
_WITHIN = 250  # frames: of a long clip what is shown is of its beginning
_GREEN, _YELLOW, _RED = (60, 220, 60), (250, 210, 40), (240, 70, 60)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """What is to be shown. cache_file: where its landmarks are. span: the frames that are kept, None for all."""

    clip: SourceClip
    cache_file: str
    span: tuple[int, int] | None = None


def draw_sheet(sheet: Sheet) -> bytes | str:
    """A JPEG with a few frames of a clip from left to right: its nine points, the squares of mouth and face, and under
    each both crops; the first frame is whole, of the others what is around the face. Or why nothing can be shown."""
    try:
        with of_the_clip():
            return _draw(sheet)
    except ClipError as error:
        return str(error)


def _draw(sheet: Sheet) -> bytes | str:
    opened, _ = open_clip(sheet.clip)
    if not opened.has_picture:
        return "no picture"
    points, _ = load_face(sheet.cache_file)
    first, last = sheet.span or (0, len(points) or _WITHIN)
    wanted = sorted(
        {round(first + (min(last, first + _WITHIN) - 1 - first) * k / (FRAMES_SHOWN + 1)) for k in (1, 2, 3)}
    )
    frames = dict(enumerate(itertools.islice(media.shown_frames(opened), wanted[-1] + 1)))
    shown = [k for k in wanted if k in frames] or sorted(frames)[:1]
    if not shown:
        return "no picture"
    columns = [
        _with_points(frames[k], points, k, whole=k == shown[0]) if len(points) > k else _at_height(frames[k])
        for k in shown
    ]
    height = max(len(column) for column in columns)
    padded = [np.pad(column, ((0, height - len(column)), (0, 4), (0, 0)), constant_values=255) for column in columns]
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(np.hstack(padded), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return jpeg.tobytes()


def _at_height(frame: np.ndarray) -> np.ndarray:
    width = max(1, round(frame.shape[1] * HEIGHT / frame.shape[0]))
    return cv2.resize(frame, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def _around(frame: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A square around the face, as far as it lies in the frame, and its corner (x, y)."""
    half, centre = _AROUND / 2 * max(float(eye_distance(points)), 8.0), points.mean(0)
    left, top = np.maximum((centre - half).round(), 0).astype(int)
    right, bottom = np.maximum((centre + half).round(), (left + 1, top + 1)).astype(int)
    window = frame[top:bottom, left:right]
    return (window, np.array([left, top])) if window.size else (frame, np.zeros(2, int))


def _with_points(frame: np.ndarray, points: np.ndarray, k: int, whole: bool) -> np.ndarray:
    """A frame, or what is around the face, above its crops; the transform of frame k is made of it and those after."""
    near = points[k : k + 12]
    transform = align(near[:, STABLE], MEAN_FACE)[0]
    squares = (Square(*FACE_SQUARE), mouth_squares(transform[None], near[:1, MOUTH_POINTS])[0])
    window, corner = (frame, np.zeros(2, int)) if whole else _around(frame, points[k])
    scale, picture = HEIGHT / window.shape[0], _at_height(window)
    for square, colour in zip(squares, (_GREEN, _YELLOW), strict=True):
        left, top, side = square
        corners = np.array([(left, top), (left + side, top), (left + side, top + side), (left, top + side)])
        placed = ((corners - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T - corner) * scale
        cv2.polylines(picture, [placed.round().astype(np.int32)], True, colour, 1, cv2.LINE_AA)
    for x, y in (points[k] - corner) * scale:
        cv2.circle(picture, (round(float(x)), round(float(y))), 1 if whole else 2, _RED, -1, cv2.LINE_AA)
    crops = crop_clip([frame], near[:1], mouth_size=72, face_size=72)
    both = np.repeat(np.hstack([crops.face[0], crops.mouth[0]])[..., None], 3, axis=2)
    width = max(picture.shape[1], both.shape[1])
    rows = [np.pad(row, ((0, 3), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in (picture, both)]
    return np.vstack(rows)
