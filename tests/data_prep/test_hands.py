"""Hands of real people through the command, and models that are none."""

import numpy as np
import pytest

from data_prep.hands import hand_model
from mmpretrain.features.hands import hands_seen
from mmpretrain.records import read_schema
from tests.data_prep.test_preparation import clips_of, prepare_folder, report_of
from tests.data_prep.test_real_clips import AV, MODEL, SHARED

HANDS = SHARED / "models" / "hand_landmarker.task"


@pytest.mark.skipif(not AV.is_dir() or not HANDS.is_file(), reason="no clips or model; set MMPRETRAIN_SHARED_DIR")
def test_hands_of_who_speaks_are_a_track(tmp_path):
    """He sits with his hands in his lap, in view; the head of another fills the picture."""
    rows = ["path,clip_id,end_sec", "talk/marlin/video03.mp4,seen,1.0", "talk/hdtf/RD_Radio2_000.mp4,head,0.6"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    arguments = ["--manifest", tmp_path / "m.csv", "--landmarker", MODEL, "--hand-landmarker", HANDS]
    assert prepare_folder(AV, tmp_path / "out", *arguments, "--validation-share", 0) == 0
    assert read_schema(tmp_path / "out").tracks["hands"].shape == (146,)
    clips = {clip.clip_id: clip for clip in clips_of(tmp_path / "out")}
    assert not clips["head"].tracks["hands"].any()
    hands = clips["seen"].tracks["hands"].astype(np.float32)
    right = hands_seen(hands)[:, 1]
    assert right.mean() > 0.8
    x, y, length = hands[right, 129:132].T
    assert (x < 0).all()  # his right is on the left of the picture
    assert ((y > 1) & (y < 4)).all()  # well below the face
    assert ((length > 0.2) & (length < 1)).all()
    rows = report_of(tmp_path / "out")
    assert (float(rows["seen"]["hands_rate"]) > 0.8, rows["head"]["hands_rate"]) == (True, "0.0")


def test_a_model_that_is_none_is_named(tmp_path):
    (tmp_path / "page.task").write_text("<html>")
    with pytest.raises(FileNotFoundError, match=r"--hand-landmarker .* does not exist"):
        hand_model(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"--hand-landmarker .*page.task is no whole MediaPipe bundle"):
        hand_model(str(tmp_path / "page.task"))
