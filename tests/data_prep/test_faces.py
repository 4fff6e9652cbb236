"""Face tracks: which face is followed, how holes are filled, where the model comes from."""

import hashlib
import zipfile

import numpy as np
import pytest

from data_prep import faces
from data_prep.crops import MEAN_FACE
from data_prep.faults import SetupError
from mmpretrain.records import BLENDSHAPES, NUM_BLENDSHAPES


def face_at(x: float, y: float, scale: float) -> np.ndarray:
    mouth = [[96.0, 184.0], [160.0, 184.0], [128.0, 171.0], [128.0, 201.0]]
    return (np.concatenate([MEAN_FACE, mouth]) - 128) * scale + (x, y)


def stack(*shown: np.ndarray) -> np.ndarray:
    return np.stack(shown) if shown else np.zeros((0, 9, 2))


def test_the_larger_face_is_followed_whatever_the_order():
    frames = []
    for t in range(20):
        large, small = face_at(100 + 2 * t, 100, 0.8), face_at(400 - 2 * t, 110, 0.5)
        frames.append(stack(large, small) if t % 2 else stack(small, large))
    assert faces._main_face(frames, [1] * 20).tolist() == [1, 0] * 10


def test_a_face_that_stays_wins_over_a_larger_one_that_passes():
    frames = [stack(face_at(100, 100, 0.5), *([face_at(400, 100, 1.0)] if t < 4 else [])) for t in range(20)]
    assert faces._main_face(frames, [1] * 20).tolist() == [0] * 20
    # A frame that is shown for long counts for long.
    assert faces._main_face(frames, [20] * 4 + [1] * 16).tolist() == [1] * 4 + [-1] * 16


def test_a_face_is_found_again_after_a_hole_but_no_other_takes_its_place():
    frames = [stack(face_at(100, 100, 0.5)) for _ in range(10)]
    frames[4] = stack()
    frames[5] = stack(face_at(500, 100, 0.5))
    assert faces._main_face(frames, [1] * 10).tolist() == [0] * 4 + [-1] * 2 + [0] * 4


def test_no_face_is_no_track():
    assert faces._main_face([stack()] * 3, [1] * 3).tolist() == [-1] * 3


def test_points_and_blendshapes_are_those_of_the_followed_face(monkeypatch, tmp_path):
    """A smile that grows on the large face while the small one beside it scowls; the fifth picture shows nobody."""
    smile, scowl = BLENDSHAPES.index("mouthSmileLeft"), BLENDSHAPES.index("browDownLeft")

    def detect(frames, model_path):
        for t in range(10):
            large, small = face_at(100, 100, 0.8), face_at(400, 110, 0.5)
            scores = np.zeros((2, NUM_BLENDSHAPES))
            scores[0, smile], scores[1, scowl] = t / 10, 1
            order = [0, 1] if t % 2 else [1, 0]
            shown = [] if t == 4 else order
            yield faces._Faces(stack(large, small)[shown], scores[shown]), 2

    monkeypatch.setattr(faces, "_detect", detect)
    track = faces.track_face((), tmp_path)
    assert track.blendshapes.shape == (20, NUM_BLENDSHAPES)
    assert track.blendshapes.dtype == np.float16
    assert track.detected.tolist() == [True] * 8 + [False] * 2 + [True] * 10
    rising = track.blendshapes[:, smile].astype(float)
    np.testing.assert_allclose(rising[4:-4], np.repeat(np.arange(10) / 10, 2)[4:-4], atol=0.03)
    assert track.blendshapes[:, scowl].max() == 0
    np.testing.assert_allclose(track.points.mean(1)[:, 0], track.points[0].mean(0)[0])


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


def test_the_model_is_given_by_flag_then_environment_then_cache(tmp_path, monkeypatch):
    for name in ("flag", "environment"):
        zipfile.ZipFile(tmp_path / name, "w").close()
    monkeypatch.setenv(faces.MODEL_ENV, str(tmp_path / "environment"))
    assert faces.landmarker_model(str(tmp_path / "flag")).name == "flag"
    assert faces.landmarker_model(None).name == "environment"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        faces.landmarker_model(str(tmp_path / "nowhere"))
    (tmp_path / "page").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="no whole MediaPipe bundle"):
        faces.landmarker_model(str(tmp_path / "page"))
    monkeypatch.delenv(faces.MODEL_ENV)
    monkeypatch.setenv("HOME", str(tmp_path))
    cached = tmp_path / ".cache" / "mmpretrain" / "face_landmarker.task"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half a mod")
    with pytest.raises(ValueError, match="remove it"):
        faces.landmarker_model(None)
    zipfile.ZipFile(cached, "w").close()
    assert faces.landmarker_model(None) == cached


def test_a_model_that_cannot_be_fetched_names_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="--landmarker"):
        faces._fetch((tmp_path / "absent.task").as_uri(), tmp_path / "cache" / "model.task")


def test_a_fetched_model_must_have_the_known_checksum(tmp_path, monkeypatch):
    served, cached = tmp_path / "served.task", tmp_path / "cache" / "model.task"
    served.write_bytes(b"something else")
    with pytest.raises(ValueError, match="checksum"):
        faces._fetch(served.as_uri(), cached)
    assert not cached.exists()
    monkeypatch.setattr(faces, "MODEL_SHA256", hashlib.sha256(b"something else").hexdigest())
    assert faces._fetch(served.as_uri(), cached).read_bytes() == b"something else"
    assert [path.name for path in cached.parent.iterdir()] == ["model.task"]


def test_a_damaged_model_is_not_taken_for_a_damaged_clip(tmp_path):
    model = tmp_path / "face_landmarker.task"
    with zipfile.ZipFile(model, "w") as bundle:
        bundle.writestr("face_detector.tflite", bytes(range(256)) * 8)
    whole = model.read_bytes()
    for content in (whole[:-30], whole[:200], whole.replace(bytes(range(9)), bytes(9)), b""):
        model.write_bytes(content)
        with pytest.raises(ValueError, match=r"--landmarker .*face_landmarker.task is (no whole|damaged)"):
            faces.landmarker_model(str(model))
    model.write_bytes(whole)  # a good archive without a model in it
    with pytest.raises(SetupError, match=r"--landmarker .*face_landmarker.task cannot be used"):
        faces.track_face([(np.zeros((64, 64, 3), np.uint8), 1)], model)
