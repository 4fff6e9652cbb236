"""Finds the hands of the person whose face is followed, with MediaPipe's HandLandmarker, in the uncropped picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_prep.faults import SetupError, reason
from data_prep.landmarker import check_bundle, eye_distance
from mmpretrain.features.hands import NUM_POINTS, SIDES, hand_features

FACE_SIZE = 2.25  # eye distances: the side of the square that holds a face
# How far a person's hands reach from the middle of the face, in sizes of it: to the sides, up, and down.
REACH = (2.5, 1.5, 4.0)


def hand_model(given: str) -> Path:
    """The model file of `--hand-landmarker`. Raises FileNotFoundError or ValueError with the remedy."""
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(f"--hand-landmarker {given} does not exist; give the path of hand_landmarker.task")
    check_bundle(path, "--hand-landmarker", "give the path of a whole hand_landmarker.task")
    return path


class HandWatch(contextlib.AbstractContextManager):
    """Looks for hands in the pictures of a clip while somebody else goes through them.

    points: float [T, 9, 2], the face in each frame. Raises SetupError for a model that cannot be used.
    """

    def __init__(self, model_path: Path, points: np.ndarray):
        # mediapipe takes seconds to import, and only processes that look for hands need it.
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.HandLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=model_path.read_bytes()),
            running_mode=vision.RunningMode.VIDEO,
            num_hands=2,
        )
        try:
            self._landmarker = vision.HandLandmarker.create_from_options(options)
        except Exception as error:
            raise SetupError(f"--hand-landmarker {model_path} cannot be used: {reason(error)}") from error
        self._image = lambda rgb: mediapipe.Image(mediapipe.ImageFormat.SRGB, rgb)
        size = FACE_SIZE * eye_distance(points)
        self._face = np.column_stack([points.mean(1), size])
        self._world = np.full((len(points), 2, NUM_POINTS, 3), np.nan)
        self._picture = np.full((len(points), 2, NUM_POINTS, 2), np.nan)

    def __exit__(self, *_: object) -> None:
        self._landmarker.close()

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames, RGB uint8 [H, W, 3], as they are."""
        before, first = None, None
        for tick, rgb in enumerate(frames):
            first = first or rgb.shape
            if tick < len(self._face) and rgb.shape == first:  # in a picture of another shape hands stand elsewhere
                if rgb is before:  # shown for several frames
                    self._world[tick], self._picture[tick] = self._world[tick - 1], self._picture[tick - 1]
                else:
                    self._look(tick, rgb)
            before = rgb
            yield rgb

    def features(self) -> np.ndarray:
        """float32 [T, 146], once all frames are seen; see `mmpretrain.features.hands`."""
        return hand_features(self._world, self._picture, self._face)

    def _look(self, tick: int, rgb: np.ndarray) -> None:
        left, top, right, bottom = self._box(rgb.shape)
        part = np.ascontiguousarray(rgb[top:bottom, left:right])
        if not part.size:
            return
        found = self._landmarker.detect_for_video(self._image(part), tick * 40)
        told = sorted(
            (-hand[0].score, SIDES.index(hand[0].category_name), number) for number, hand in enumerate(found.handedness)
        )
        taken: set[int] = set()
        for _, side, number in told:  # two of one side are one of each: the surer one is right
            side = side if side not in taken else 1 - side
            taken.add(side)
            self._world[tick, side] = [(p.x, p.y, p.z) for p in found.hand_world_landmarks[number]]
            seen = [(point.x * part.shape[1], point.y * part.shape[0]) for point in found.hand_landmarks[number]]
            self._picture[tick, side] = np.add(seen, (left - 0.5, top - 0.5))

    def _box(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """What the person can reach during the clip: one box, since a tracker follows what stands still."""
        (x, y), size = np.median(self._face[:, :2], axis=0), float(np.median(self._face[:, 2]))
        aside, up, down = (reach * size for reach in REACH)
        left, right = min(self._face[:, 0].min(), x - aside), max(self._face[:, 0].max(), x + aside)
        top, bottom = min(self._face[:, 1].min(), y - up), max(self._face[:, 1].max(), y + down)
        return max(int(left), 0), max(int(top), 0), min(int(right), shape[1]), min(int(bottom), shape[0])
