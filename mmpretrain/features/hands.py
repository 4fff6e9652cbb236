"""What two hands do, frame by frame: their shape, where they are from the face, how they are turned. No JAX.

A hand is MediaPipe's: 21 points; 0 is the wrist, 5, 9 and 17 are the knuckles of index, middle and little finger.
"""

from __future__ import annotations

import itertools

import numpy as np

NUM_POINTS = 21
WRIST, INDEX, MIDDLE, LITTLE = 0, 5, 9, 17
SIDES = ("Left", "Right")  # of the person
HANDS_DIM = 2 * (3 * NUM_POINTS + 3 + 1 + 6)  # 146
MAX_GAP = 5  # frames: a hand that is away for longer is away
_SHAPE, _PLACE, _THERE, _TURN = (slice(0, 126), slice(126, 132), slice(132, 134), slice(134, 146))


def hand_features(world: np.ndarray, picture: np.ndarray, face: np.ndarray) -> np.ndarray:
    """float32 [T, 146]: of the left hand and then of the right, first the shape of both (63 numbers each: the points
    from the wrist, in lengths from wrist to middle knuckle), then the place of both wrists (3 each: x and y from the
    middle of the face and the hand's length, in sizes of the face), whether they are there (1 each), and how they are
    turned (6 each: the directions from the wrist to the middle knuckle and across the palm; Zhou et al. 2019).

    world: [T, 2, 21, 3] in metres, NaN where there is no hand. picture: [T, 2, 21, 2], the same in pixels. face:
    [T, 3], x and y of its middle and its size, in pixels. A gap of up to `MAX_GAP` frames is filled along a line; a
    hand that is away for longer is zeros.
    """
    out = np.zeros((len(world), HANDS_DIM), np.float32)
    for hand in range(2):
        seen = np.flatnonzero(np.isfinite(world[:, hand]).all((1, 2)))
        if not len(seen):
            continue
        shape = world[seen, hand] - world[seen, hand, :1]
        shape /= np.maximum(np.linalg.norm(shape[:, MIDDLE], axis=-1), 1e-6)[:, None, None]
        ahead = shape[:, MIDDLE] / np.maximum(np.linalg.norm(shape[:, MIDDLE], axis=-1, keepdims=True), 1e-6)
        across = shape[:, LITTLE] - shape[:, INDEX]
        across -= (across * ahead).sum(-1, keepdims=True) * ahead
        across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6)
        wrist = picture[seen, hand, WRIST]
        length = np.linalg.norm(picture[seen, hand, MIDDLE] - wrist, axis=-1, keepdims=True)
        place = np.concatenate([wrist - face[seen, :2], length], axis=1) / np.maximum(face[seen, 2:], 1.0)
        numbers = np.concatenate([shape.reshape(len(seen), -1), place, np.ones((len(seen), 1)), ahead, across], axis=1)
        frames = _near(seen, len(world))
        filled = np.stack([np.interp(frames, seen, column) for column in numbers.T], axis=1)
        for part, columns in zip((_SHAPE, _PLACE, _THERE, _TURN), np.split(filled, (63, 66, 67), axis=1), strict=True):
            width = columns.shape[1]
            out[frames, part.start + hand * width : part.start + (hand + 1) * width] = columns
    return out


def hands_seen(features: np.ndarray) -> np.ndarray:
    """Which hands are there, bool [T, 2], of features [T, 146]."""
    return features[:, _THERE] > 0.5


def _near(seen: np.ndarray, num_frames: int) -> np.ndarray:
    """The frames that are seen and those of short gaps between them."""
    there = np.zeros(num_frames, bool)
    there[seen] = True
    for before, after in itertools.pairwise(seen):
        if after - before - 1 <= MAX_GAP:
            there[before:after] = True
    return np.flatnonzero(there)
