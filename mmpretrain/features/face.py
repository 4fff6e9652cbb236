"""What a whole face does, frame by frame: how its picture changes, and how far each of its movements goes.

Both are the same for a face and its mirror image, as training mirrors clips without making their targets again. No JAX:
data workers use this. Dims: T frames, H x W pixels, F features.
"""

from __future__ import annotations

import functools

import numpy as np

from mmpretrain.features.deltas import deltas
from mmpretrain.records import BLENDSHAPES

DOWN_FREQUENCIES = tuple(range(10))  # half waves over the height of the face: to a tenth of it, about the lips
ACROSS_FREQUENCIES = (0, 2, 4, 6, 8)  # over its width; the even ones do not change when a face is mirrored
APPEARANCE_DIM = 2 * (len(DOWN_FREQUENCIES) * len(ACROSS_FREQUENCIES) - 1)
CHANGE_SCALE = 0.25  # a slope per frame is about so much of a value: measured on GRID, MEAD and RAVDESS, rounded

# The neutral score is no movement; of a movement to the left and one to the right the mean counts.
MOVEMENTS = tuple(dict.fromkeys(name.removesuffix("Left").removesuffix("Right") for name in BLENDSHAPES[1:]))
GEOMETRY_DIM = 2 * len(MOVEMENTS)


def appearance_features(face_THW: np.ndarray, centre_F: np.ndarray | float | None = None) -> np.ndarray:
    """How the aligned face differs from a mean face: float32 [T, 98].

    face_THW: uint8, the face crop. Every frame is scaled to mean 0 and variance 1, whatever its brightness and
    contrast, and taken to its lowest frequencies by an orthonormal two-dimensional DCT-II, which needs no resizing
    first. The centre is taken off; then come the slopes over five frames.

    centre_F: [49], as `appearance_sums` has it, of the speaker; 0: nothing is taken off. None: the clip's own mean, in
    which is what stays of a person, a room and the direction of its light (so is an expression that lasts). Raises
    ValueError where there is no video.
    """
    return _relative(_appearance(face_THW), centre_F)


def appearance_sums(face_THW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a clip adds to its speaker's centre: sums over frames and their number, float64 [49] each."""
    return _sums(_appearance(face_THW))


def _appearance(face_THW: np.ndarray) -> np.ndarray:
    """float32 [T, 49]."""
    if not len(face_THW):
        raise ValueError("a clip without video has no face; leave it out, or use other targets.features")
    height, width = face_THW.shape[1:]
    pixels = face_THW.astype(np.float32)
    pixels -= pixels.mean(axis=(1, 2), keepdims=True)
    # A deviation of one grey level at least: an even frame has no picture to scale up.
    pixels /= np.maximum(pixels.std(axis=(1, 2), keepdims=True), 1)
    waves_TVU = _waves(DOWN_FREQUENCIES, height) @ pixels @ _waves(ACROSS_FREQUENCIES, width).T
    return waves_TVU.reshape(len(face_THW), -1)[:, 1:] / np.sqrt(height * width)  # all but the mean, which is 0


def geometry_features(blendshapes_TF: np.ndarray, centre_F: np.ndarray | float | None = 0.0) -> np.ndarray:
    """How far each movement of the face goes and how fast it changes: float32 [T, 62].

    blendshapes_TF: [T, 52] as in a record. MediaPipe fits them to whoever's face it is; what it leaves of the person
    can be taken off. centre_F: [31], as `geometry_sums` has it, of the speaker; 0: nothing is taken off; None: the
    clip's own mean, with which an expression that lasts would go. Raises ValueError where there are none.
    """
    return _relative(_geometry(blendshapes_TF), centre_F)


def geometry_sums(blendshapes_TF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a clip adds to its speaker's centre: sums over frames and their number, float64 [31] each."""
    return _sums(_geometry(blendshapes_TF))


def _geometry(blendshapes_TF: np.ndarray) -> np.ndarray:
    """float32 [T, 31]."""
    if not len(blendshapes_TF):
        raise ValueError("a clip without blendshapes has no face geometry; leave it out, or use other targets.features")
    return blendshapes_TF.astype(np.float32) @ _movements()


def _sums(x_TF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x_TF.sum(0, dtype=np.float64), np.full(x_TF.shape[1], len(x_TF), np.float64)


def _relative(x_TF: np.ndarray, centre_F: np.ndarray | float | None) -> np.ndarray:
    """Over the centre, or over their own mean, with slopes."""
    x_TF = x_TF - (x_TF.mean(axis=0) if centre_F is None else np.asarray(centre_F, np.float32))
    return np.concatenate([x_TF, deltas(x_TF) / CHANGE_SCALE], axis=1).astype(np.float32)


@functools.cache
def _waves(frequencies: tuple[int, ...], size: int) -> np.ndarray:
    """Rows of the orthonormal DCT-II over `size` pixels: float32 [frequencies, size]."""
    half_waves = np.array(frequencies)[:, None] * (np.arange(size) + 0.5) / size
    scale = np.where(np.array(frequencies)[:, None] == 0, 1, 2) / size
    return (np.sqrt(scale) * np.cos(np.pi * half_waves)).astype(np.float32)


@functools.cache
def _movements() -> np.ndarray:
    """float32 [52, 31]: takes the scores to those of `MOVEMENTS`, means where there is a left and a right one."""
    weights = np.zeros((len(BLENDSHAPES), len(MOVEMENTS)), np.float32)
    for row, name in enumerate(BLENDSHAPES):
        for column, movement in enumerate(MOVEMENTS):
            weights[row, column] = name in (movement, movement + "Left", movement + "Right")
    return weights / weights.sum(axis=0)
