"""Aligns a face to a mean face and cuts the mouth and the whole face out of it, as AV-HuBERT's preparation does.

A similarity transform takes the points that speech does not move (eye corners, nose base) onto a mean face in a frame
of 256 x 256; all sizes below are in pixels of that frame, and every crop is one warp straight from the picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from mmpretrain.features import mean_face
from mmpretrain.features.mean_face import CROP_SIZES, FACE_SQUARE, FRAME_SIDE, MOUTH_SIDE, SMOOTHING_FRAMES

# The nine points of a face, image left to right: the subject's right eye (outer, inner corner), left eye (inner,
# outer), nose base, then right and left corner of the mouth, upper and lower lip (outer edges).
NUM_POINTS = 9
STABLE = slice(0, 5)
MOUTH = slice(5, 9)

MEAN_FACE = np.array(mean_face.MEAN_FACE)

# From one frame to the next, in sizes of a face, and of its size: no head moves or nears as fast.
MAX_MOVE = 0.5
MAX_GROWTH = 0.1

# A crop with less inside of the picture than this, or whose grey levels vary less, shows nothing: of real faces, also
# in the dark, mouths have a standard deviation of several levels.
MIN_INSIDE = 0.5
MIN_DEVIATION = 1.0


class Square(NamedTuple):
    """Part of the aligned frame: pixels left .. left + side - 1."""

    left: float
    top: float
    side: float


class Crops(NamedTuple):
    """Mouth uint8 [T, M, M] and face uint8 [T, F, F] of one clip, and empty bool [T]: where one of them shows nothing,
    be it that most of it lies outside of the picture or that all of it is of one grey. mouth_colour, face_colour: the
    same in RGB, [T, M, M, 3] and [T, F, F, 3], where they were asked for."""

    mouth: np.ndarray
    face: np.ndarray
    empty: np.ndarray
    mouth_colour: np.ndarray | None = None
    face_colour: np.ndarray | None = None


class Cropper:
    """Cuts mouth and face of one person out of picture after picture: `add` each, then `crops`.

    points: float [T, 9, 2], x and y in pixels of a picture of size `first` (height, width; None: that of the first that
    is added), onto which those of another size are laid (see `laid_onto`). colour: keep the crops in colour too,
    which all pictures must have.
    """

    def __init__(
        self,
        points: np.ndarray,
        *,
        mouth_size: int,
        face_size: int,
        first: tuple[int, int] | None = None,
        colour: bool = False,
    ):
        self._transforms = align(points[:, STABLE], MEAN_FACE)
        self._squares = mouth_squares(self._transforms, points[:, MOUTH])
        mouth, face = (np.empty((len(points), size, size), np.uint8) for size in (mouth_size, face_size))
        colours = [np.empty((*crops.shape, 3), np.uint8) for crops in (mouth, face)] if colour else []
        self._crops = Crops(mouth, face, np.zeros(len(points), bool), *colours)
        self._count, self._first = 0, first

    def add(self, frame: np.ndarray) -> None:
        """The next picture, RGB uint8 [H, W, 3] or grey [H, W]."""
        t, size, (mouth, face, empty, *colours) = self._count, frame.shape[:2], self._crops
        self._first = self._first or size
        self._count += 1
        if t >= len(empty):
            return
        transform = self._transforms[t]
        if size != self._first:
            transform = chain(laid_onto(size, self._first), transform)
        squares = (self._squares[t], Square(*FACE_SQUARE))
        for crops, colour, square in zip((mouth, face), colours, squares, strict=True):
            image = cut(frame, transform, square, crops.shape[1])
            crops[t] = grey(image)
            if colour is not None:
                colour[t] = image
        empty[t] = any(
            crop[t].std() < MIN_DEVIATION or inside(size, transform, square) < MIN_INSIDE
            for crop, square in zip((mouth, face), squares, strict=True)
        )

    def crops(self) -> Crops:
        """Of all. Raises ValueError if there were fewer or more pictures than points."""
        if self._count != len(self._transforms):
            raise ValueError(
                f"{self._count} frames but landmarks of {len(self._transforms)}: the file has changed since it was "
                "looked at"
            )
        return self._crops


def crop_clip(
    frames: Iterable[np.ndarray],
    points: np.ndarray,
    *,
    mouth_size: int = CROP_SIZES["mouth"],
    face_size: int = CROP_SIZES["face"],
    colour: bool = False,
) -> Crops:
    """Cuts mouth and face out of each picture of a clip, read one at a time; see `Cropper`.

    Raises ValueError if there are fewer or more pictures than points.
    """
    cropper = Cropper(points, mouth_size=mouth_size, face_size=face_size, colour=colour)
    for frame in frames:
        cropper.add(frame)
    return cropper.crops()


def face_boxes(points: np.ndarray) -> np.ndarray:
    """What of the picture the square of the face covers, float32 [T, 4]: left, top, right, bottom in pixels, for points
    [T, 9, 2]."""
    left, top, side = FACE_SQUARE
    corners = np.array([(left, top), (left + side, top), (left, top + side), (left + side, top + side)])
    found = [apply(cv2.invertAffineTransform(transform), corners) for transform in align(points[:, STABLE], MEAN_FACE)]
    boxes = [np.concatenate([corner.min(0), corner.max(0)]) for corner in found]
    return np.array(boxes, np.float32).reshape(-1, 4)


def laid_onto(size: tuple[int, int], first: tuple[int, int]) -> np.ndarray:
    """The transform, float64 [2, 3], that lays a picture of `size` (height, width) onto one of size `first`: as large
    as fits, in the middle, as a player goes on in the same window where the size changes in a stream."""
    scale = min(first[0] / size[0], first[1] / size[1])
    shift = [(first[side] - scale * size[side]) / 2 + scale / 2 - 0.5 for side in (1, 0)]
    return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])


def chain(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Two transforms [2, 3] as one."""
    return np.column_stack([then[:, :2] @ first[:, :2], apply(then, first[:, 2])])


def inside(size: tuple[int, int], transform: np.ndarray, square: Square) -> float:
    """How much of a square of the aligned frame lies within a picture of `size` (height, width), as a share."""
    steps = (np.arange(8) + 0.5) / 8 * square.side
    back = cv2.invertAffineTransform(transform)
    corners = np.array([(square.left + x, square.top + y) for x in steps[[0, -1]] for y in steps[[0, -1]]])
    if _within(apply(back, corners), size).all():  # as nearly always, and then all points between them are
        return 1.0
    return float(_within(apply(back, np.stack(np.meshgrid(square.left + steps, square.top + steps), -1)), size).mean())


def _within(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which of points [..., 2] lie in a picture of `size` (height, width)."""
    return ((points >= -0.5) & (points < np.array(size[::-1]) - 0.5)).all(-1)


def grey(image: np.ndarray) -> np.ndarray:
    """An RGB picture in OpenCV's luma; a grey one as it is. After the cut, as in the reference: before it, pixels come
    out up to two levels apart from its own.
    """
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift, float64 [2, 3], that takes points [P, 2] nearest to target (Umeyama 1991)."""
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    # In two dimensions the least-squares rotation has a closed form: the angle of the summed complex products.
    z, w = centred @ (1, 1j), (target - target_mean) @ (1, 1j)
    turn = np.vdot(z, w) / max(np.vdot(z, z).real, 1e-12)
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def align(stable_points: np.ndarray, mean_points: np.ndarray, window: int = SMOOTHING_FRAMES) -> np.ndarray:
    """Transforms [T, 2, 3] from picture to aligned frame, for stable points [T, P, 2] and their mean positions [P, 2].

    Frame t is aligned by the mean of frames t .. t+window-1; the last window-1 frames share the last transform. Where
    the face jumps, as where the picture gets another shape, those before and those after are aligned apart.
    """
    size = np.maximum(np.linalg.norm(np.ptp(stable_points, axis=1), axis=-1), 1e-6)
    moves = np.linalg.norm(np.diff(stable_points.mean(1), axis=0), axis=-1) / size[1:]
    grows = np.abs(np.diff(np.log(size)))
    jumps = np.flatnonzero((moves > MAX_MOVE) | (grows > MAX_GROWTH)) + 1
    return np.concatenate([_align(part, mean_points, window) for part in np.split(stable_points, jumps)])


def _align(stable_points: np.ndarray, mean_points: np.ndarray, window: int) -> np.ndarray:
    window = min(window, len(stable_points))
    means = np.lib.stride_tricks.sliding_window_view(stable_points, window, axis=0).mean(-1)
    transforms = [fit_similarity(points, mean_points) for points in means]
    return np.stack(transforms + transforms[-1:] * (window - 1))


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., 2] through one transform [2, 3]."""
    return points @ transform[:, :2].T + transform[:, 2]


def mouth_squares(transforms: np.ndarray, mouth_points: np.ndarray) -> list[Square]:
    """Where each frame's mouth is cut: centred on its points [T, P, 2], moved inside the frame, on whole pixels."""
    half = MOUTH_SIDE // 2
    squares = []
    for transform, points in zip(transforms, mouth_points, strict=True):
        centre = np.clip(apply(transform, points).mean(0), half, FRAME_SIDE - half)
        left, top = (float(round(c)) - half for c in centre)
        squares.append(Square(left, top, MOUTH_SIDE))
    return squares


def cut(image: np.ndarray, transform: np.ndarray, square: Square, size: int) -> np.ndarray:
    """A square of the aligned frame as size x size pixels, bilinear, black where the picture ends.

    Where that shrinks the picture to less than half, it is first reduced by averaging, so that nothing aliases.
    """
    zoom = size / square.side
    to_crop = transform.copy()
    # Pixel centres are at whole numbers on both sides, so a zoom is about the corner at -0.5.
    to_crop[:, 2] = zoom * (transform[:, 2] - (square.left, square.top) + 0.5) - 0.5
    to_crop[:, :2] *= zoom
    scale = float(np.hypot(*to_crop[:, 0]))
    reduction = int(0.999 / scale) if scale < 0.5 else 1
    if reduction > 1:
        height, width = (max(1, side // reduction) for side in image.shape[:2])
        # Whole blocks only, so that the reduction is exact; the few rows and columns left over are border.
        image = image[: height * reduction, : width * reduction]
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        to_crop[:, 2] += to_crop[:, :2].sum(1) * (reduction - 1) / 2
        to_crop[:, :2] *= reduction
    return cv2.warpAffine(image, to_crop, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
