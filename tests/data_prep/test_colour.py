"""Crops in colour beside the grey ones."""

import numpy as np

from data_prep.crops import grey
from mmpretrain.records import read_schema
from tests.data_prep.authored import write_mp4
from tests.data_prep.test_given_landmarks import mesh
from tests.data_prep.test_preparation import clips_of, prepare_folder


def test_grey_crops_are_those_in_colour_without_it(tmp_path):
    write_mp4(tmp_path / "in" / "a.mp4", 10)
    (tmp_path / "known").mkdir()
    np.savez(tmp_path / "known" / "a.npz", points=np.stack([mesh(68, 26, 17, 0.15)] * 10))
    arguments = ["--landmarks", tmp_path / "known", "--validation-share", 0, "--face-size", 64]
    assert prepare_folder(tmp_path / "in", tmp_path / "colour", *arguments, "--colour") == 0
    assert prepare_folder(tmp_path / "in", tmp_path / "grey", *arguments) == 0
    assert read_schema(tmp_path / "colour").tracks["face_colour"].shape == (64, 64, 3)
    (clip,), (plain,) = clips_of(tmp_path / "colour"), clips_of(tmp_path / "grey")
    assert not plain.tracks
    for view in ("mouth", "face"):
        in_grey, colour = getattr(clip, view), clip.tracks[f"{view}_colour"]
        np.testing.assert_array_equal(in_grey, np.stack([grey(picture) for picture in colour]))
        np.testing.assert_array_equal(in_grey, getattr(plain, view))
