"""The face landmarker: where its model comes from, and the parts of a picture it looks at."""

import hashlib
import zipfile

import numpy as np
import pytest

from data_prep import landmarker
from data_prep.faults import SetupError


def test_the_model_is_given_by_flag_then_environment_then_cache(tmp_path, monkeypatch):
    for name in ("flag", "environment"):
        zipfile.ZipFile(tmp_path / name, "w").close()
    monkeypatch.setenv(landmarker.MODEL_ENV, str(tmp_path / "environment"))
    assert landmarker.landmarker_model(str(tmp_path / "flag")).name == "flag"
    assert landmarker.landmarker_model(None).name == "environment"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        landmarker.landmarker_model(str(tmp_path / "nowhere"))
    (tmp_path / "page").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="no whole MediaPipe bundle"):
        landmarker.landmarker_model(str(tmp_path / "page"))
    monkeypatch.setenv(landmarker.MODEL_ENV, str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"^\$MMPRETRAIN_LANDMARKER .*gone does not exist"):
        landmarker.landmarker_model(None)
    monkeypatch.delenv(landmarker.MODEL_ENV)
    monkeypatch.setenv("HOME", str(tmp_path))
    cached = tmp_path / ".cache" / "mmpretrain" / "face_landmarker.task"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half a mod")
    with pytest.raises(ValueError, match="remove it"):
        landmarker.landmarker_model(None)
    zipfile.ZipFile(cached, "w").close()
    assert landmarker.landmarker_model(None) == cached


def test_a_model_that_cannot_be_fetched_names_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="--landmarker"):
        landmarker._fetch((tmp_path / "absent.task").as_uri(), tmp_path / "cache" / "model.task")


def test_a_fetched_model_must_have_the_known_checksum(tmp_path, monkeypatch):
    served, cached = tmp_path / "served.task", tmp_path / "cache" / "model.task"
    served.write_bytes(b"something else")
    with pytest.raises(ValueError, match="checksum"):
        landmarker._fetch(served.as_uri(), cached)
    assert not cached.exists()
    monkeypatch.setattr(landmarker, "MODEL_SHA256", hashlib.sha256(b"something else").hexdigest())
    assert landmarker._fetch(served.as_uri(), cached).read_bytes() == b"something else"
    assert [path.name for path in cached.parent.iterdir()] == ["model.task"]


def test_a_damaged_model_is_not_taken_for_a_damaged_clip(tmp_path):
    model = tmp_path / "face_landmarker.task"
    with zipfile.ZipFile(model, "w") as bundle:
        bundle.writestr("face_detector.tflite", bytes(range(256)) * 8)
    whole = model.read_bytes()
    for content in (whole[:-30], whole[:200], whole.replace(bytes(range(9)), bytes(9)), b""):
        model.write_bytes(content)
        with pytest.raises(ValueError, match=r"--landmarker .*face_landmarker.task is (no whole|damaged)"):
            landmarker.landmarker_model(str(model))
    model.write_bytes(whole)  # a good archive without a model in it
    with pytest.raises(SetupError, match=r"--landmarker .*face_landmarker.task cannot be used"):
        list(landmarker.find_faces([(np.zeros((64, 64, 3), np.uint8), 1)], model))
