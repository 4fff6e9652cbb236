"""Small faces, many of them: each is found once, wherever parts of the picture end."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep import media
from data_prep.crowd import MIN_SIDE_PX, _others, find_everybody, parts_of
from data_prep.landmarker import EYES, MESH_POINTS, Mesh, find_faces

SHARED = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[2].parent / "shared"))
MODEL = SHARED / "models" / "face_landmarker.task"


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (1920, 1080), (720, 720), (240, 320)])
def test_parts_cover_the_picture_and_are_never_too_small(height, width):
    covered = np.zeros((height, width), int)
    for left, top, right, bottom in parts_of(height, width):
        x, y = slice(round(left * width), round(right * width)), slice(round(top * height), round(bottom * height))
        assert min(x.stop - x.start, y.stop - y.start) >= min(MIN_SIDE_PX, height, width)
        covered[y, x] += 1
    assert covered.min() >= 1 or max(height, width) < 2 * MIN_SIDE_PX


def face(x, y, side, eyes=0.6):
    """A mesh in a square box around (x, y); eyes: how far apart, in sides, as little in profile."""
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 2))
    points[:2] = (-0.5, -0.5), (0.5, 0.5)
    points[[MESH_POINTS[k] for k in EYES]] = (-eyes / 2, -0.1), (eyes / 2, -0.1)
    return Mesh(points * side + (x, y), np.zeros(52, np.float32))


@pytest.mark.parametrize(("other", "same"), [
    (face(530, 500, 100), True),
    (face(510, 505, 90, eyes=0.05), True),  # in profile, fitted a little off
    (face(520, 510, 60), True),  # fitted to a part of it
    (face(485, 500, 180), True),
    (face(580, 500, 100), False),  # cheek to cheek
    (face(555, 455, 70), False),  # over a shoulder
    (face(500, 640, 100), False),
], ids=["beside", "profile", "smaller", "larger", "neighbour", "behind", "below"])  # fmt: skip
@pytest.mark.parametrize("eyes", [0.6, 0.05], ids=["seen from the front", "from the side"])
def test_a_face_that_two_parts_of_the_picture_show_is_one(other, same, eyes):
    one, part, shape = face(500, 500, 100, eyes), (0.25, 0.25, 0.75, 0.75), (1000, 1000, 3)
    assert len(_others([other], [one], part, shape)) == (not same)
    assert len(_others([one], [other], part, shape)) == (not same)
    assert len(_others([one, other], [], part, shape)) == 2 - same
    assert _others([face(270, 500, 100)], [], part, shape) == [], "cut off by the edge of the part"


def test_ten_people_are_ten_of_whom_the_largest_come_first():
    if not MODEL.is_file():
        pytest.skip(f"no face landmarker under {SHARED}; set MMPRETRAIN_SHARED_DIR")
    clip = media.open_media(SHARED / "data" / "av" / "ravdess" / "360p" / "01-01-01-01-01-02-01.mp4")
    face, _ = next(iter(media.video_frames(clip)))
    picture = np.full((720, 1280, 3), 200, np.uint8)
    for k in range(10):  # rows of five, of which the first is larger
        size = 150 if k < 5 else 110
        shown = cv2.resize(face[:, 140:500], (size, size), interpolation=cv2.INTER_AREA)
        picture[300 * (k // 5) : 300 * (k // 5) + size, 256 * (k % 5) : 256 * (k % 5) + size] = shown
    frames = [(picture, 1)] * 3
    assert max(len(found.points) for found, _ in find_faces(frames, MODEL, num_faces=12)) < 10, "at once they are not"
    for found, _ in find_everybody(frames, MODEL, 12):
        assert len(found.points) == 10
        middles = found.points[:, [0, 3]].mean(1)
        assert (middles[:5, 1] < 200).all()
        assert (middles[5:, 1] > 300).all()
    assert [len(found.points) for found, _ in find_everybody(frames[:1], MODEL, 4)] == [4]
