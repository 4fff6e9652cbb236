"""Files through an encoder: what a prepared corpus of the same file gives, number for number."""

import numpy as np
import pytest

import mmpretrain
from data_prep.__main__ import main as prepare
from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from tests.predict.conftest import CROP_SIZE, LANDMARKER


@pytest.fixture(scope="module")
def encoder(encoder_folder):
    return mmpretrain.load_encoder(encoder_folder)


def test_the_features_of_a_file_are_those_of_the_prepared_clip(encoder, real, tmp_path):
    clip = real / "grid" / "other" / "brbk7n.mpg"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / clip.name).symlink_to(clip)
    arguments = ["folder", "--source", tmp_path / "in", "--output", tmp_path / "out", "--mouth-size", CROP_SIZE]
    assert prepare([*map(str, arguments), "--landmarker", str(LANDMARKER), "--workers", "1"]) == 0
    prepared = open_clips([CorpusConfig(f"{tmp_path}/out")]).load(0)
    (tmp_path / "clip").symlink_to(clip)  # a video whatever it is called
    for layer, path in ((None, clip), (1, tmp_path / "clip")):
        of_file = encoder.from_file(path, layer=layer, landmarker=str(LANDMARKER))
        assert of_file.shape == (75, 16)
        np.testing.assert_array_equal(of_file, encoder.features_of(prepared, layer=layer))


def test_what_is_no_clip_is_refused_with_its_name(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav: the file does not exist"):
        encoder.from_file(tmp_path / "gone.wav")
    (tmp_path / "text.wav").write_text("no sound, but words\n" * 50)
    with pytest.raises(ValueError, match=r"text\.wav: cannot be opened"):
        encoder.from_file(tmp_path / "text.wav")
