"""Face tracks: which face is followed and taken, how holes are filled."""

import numpy as np

from data_prep import faces
from data_prep.crops import MEAN_FACE
from data_prep.landmarker import Faces
from mmpretrain.records import BLENDSHAPES, NUM_BLENDSHAPES


def face_at(x: float, y: float, scale: float) -> np.ndarray:
    mouth = [[96.0, 184.0], [160.0, 184.0], [128.0, 171.0], [128.0, 201.0]]
    return (np.concatenate([MEAN_FACE, mouth]) - 128) * scale + (x, y)


def seen(points: np.ndarray, **more) -> Faces:
    """A picture with these faces, all with the look that `looks` says, or the same one."""
    default = {
        "blendshapes": np.zeros((len(points), NUM_BLENDSHAPES)),
        "opening": np.zeros(len(points)),
        "looks": np.tile([1.0, 0.0], (len(points), 1)),
    }
    return Faces(points, **{**default, **more})


def main_face(frames: list[np.ndarray], counts: list[int] | None = None, shapes: list[int] | None = None) -> list[int]:
    """Which of its faces is taken in each picture, -1 for none."""
    counts, shapes = counts or [1] * len(frames), shapes or [0] * len(frames)
    pictures = [seen(points, shape=shape) for points, shape in zip(frames, shapes, strict=True)]
    tracks = faces.follow(pictures)
    if not tracks:
        return [-1] * len(frames)
    taken, *_ = faces._choose(pictures, counts, tracks, faces.NO_SOUND)
    return [taken.get(picture, -1) for picture in range(len(frames))]


def stack(*shown: np.ndarray) -> np.ndarray:
    return np.stack(shown) if shown else np.zeros((0, 9, 2))


def test_the_larger_face_is_followed_whatever_the_order():
    frames = []
    for t in range(20):
        large, small = face_at(100 + 2 * t, 100, 0.8), face_at(400 - 2 * t, 110, 0.5)
        frames.append(stack(large, small) if t % 2 else stack(small, large))
    assert main_face(frames, [1] * 20) == [1, 0] * 10


def test_a_face_that_stays_wins_over_a_larger_one_that_passes():
    frames = [stack(face_at(100, 100, 0.5), *([face_at(400, 100, 1.0)] if t < 4 else [])) for t in range(20)]
    assert main_face(frames, [1] * 20) == [0] * 20
    # A frame that is shown for long counts for long.
    assert main_face(frames, [20] * 4 + [1] * 16) == [1] * 4 + [-1] * 16


def test_a_face_is_found_again_after_a_hole_but_no_other_takes_its_place():
    frames = [stack(face_at(100, 100, 0.5)) for _ in range(10)]
    frames[4] = stack()
    frames[5] = stack(face_at(500, 100, 0.5))
    assert main_face(frames, [1] * 10) == [0] * 4 + [-1] * 2 + [0] * 4


def test_no_face_is_no_track():
    assert main_face([stack()] * 3, [1] * 3) == [-1] * 3


def test_points_and_blendshapes_are_those_of_the_followed_face():
    """A smile that grows on the large face while the small one beside it scowls; the fifth picture shows nobody."""
    smile, scowl = BLENDSHAPES.index("mouthSmileLeft"), BLENDSHAPES.index("browDownLeft")

    def found():
        for t in range(10):
            large, small = face_at(100, 100, 0.8), face_at(400, 110, 0.5)
            scores = np.zeros((2, NUM_BLENDSHAPES))
            scores[0, smile], scores[1, scowl] = t / 10, 1
            order = [0, 1] if t % 2 else [1, 0]
            shown = [] if t == 4 else order
            yield seen(stack(large, small)[shown], blendshapes=scores[shown]), 2

    track = faces.track_face(found())
    assert track.blendshapes.shape == (20, NUM_BLENDSHAPES)
    assert track.blendshapes.dtype == np.float16
    assert track.detected.tolist() == [True] * 8 + [False] * 2 + [True] * 10
    rising = track.blendshapes[:, smile].astype(float)
    np.testing.assert_allclose(rising[4:-4], np.repeat(np.arange(10) / 10, 2)[4:-4], atol=0.03)
    assert track.blendshapes[:, scowl].max() == 0
    np.testing.assert_allclose(track.points.mean(1)[:, 0], track.points[0].mean(0)[0])


def test_pictures_that_nobody_looked_at_lie_on_a_line_between_the_others():
    """Two faces pass each other evenly; every second picture is not looked at, in any order of the faces."""
    found = []
    for t in range(21):
        large, small = face_at(100 + 2 * t, 100, 0.8), face_at(400 - 2 * t, 130, 0.5)
        order = [large, small] if t % 4 else [small, large]
        away = 9 <= t <= 13
        found.append((None if t % 2 else seen(stack(*([] if away else order))), 1))
    track = faces.track_face(found)
    assert track.points.shape == (21, 9, 2)
    assert track.detected.tolist() == [t <= 8 or t >= 14 for t in range(21)]
    expected = np.stack([face_at(100 + 2 * t, 100, 0.8) for t in range(21)])
    np.testing.assert_allclose(track.points[2:-2], expected[2:-2], atol=1e-3)
    # The last is not looked at, and is where the one before it is.
    assert faces.track_face(found[:20]).detected[-1]


def test_holes_are_filled_linearly_and_ends_copied():
    detected = np.array([False, True, False, False, True, False])
    points = np.zeros((6, 9, 2))
    points[1], points[4] = 3.0, 9.0
    filled = faces.fill_gaps(points, detected)
    np.testing.assert_allclose(filled[:, 0, 0], [3, 3, 5, 7, 9, 9])


def test_smoothing_leaves_straight_motion_alone():
    points = np.broadcast_to(np.arange(12.0)[:, None, None], (12, 9, 2))
    smoothed = faces.smooth(points)
    np.testing.assert_allclose(smoothed[2:-2], points[2:-2])
    jitter = points + np.where(np.arange(12) % 2, 1.0, -1.0)[:, None, None]
    assert np.abs(faces.smooth(jitter)[2:-2] - points[2:-2]).max() < 0.1
