"""Files through an encoder: what a prepared corpus of the same file gives, number for number."""

import os
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import mmpretrain
from data_prep.__main__ import main as prepare
from mmpretrain.config import CorpusConfig, InputConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from tests.tiny import initial, tiny_model

SHARED = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[2].parent / "shared"))
MODEL = SHARED / "models" / "face_landmarker.task"
GRID = SHARED / "data" / "av" / "grid" / "other" / "brbk7n.mpg"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    config = tiny_model("audio", "video", inputs=InputConfig(image_size=28))
    module = nnx.merge(*initial(lambda rngs: AVEncoder(config, rngs=rngs)))
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    save_encoder(folder, module, lineage={"fingerprint": "of the test"}, crop_size=32)
    return mmpretrain.load_encoder(folder)


def test_the_features_of_a_file_are_those_of_the_prepared_clip(encoder, tmp_path):
    if not GRID.is_file() or not MODEL.is_file():
        pytest.skip(f"no real clips or no landmarker under {SHARED}; set MMPRETRAIN_SHARED_DIR")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / GRID.name).symlink_to(GRID)
    arguments = ["folder", "--source", tmp_path / "in", "--output", tmp_path / "out", "--mouth-size", 32]
    assert prepare([*map(str, arguments), "--landmarker", str(MODEL), "--workers", "1"]) == 0
    (clip,) = (lambda table: [table.load(i) for i in range(len(table))])(open_clips([CorpusConfig(f"{tmp_path}/out")]))
    for layer in (None, 1):
        of_file = encoder.from_file(GRID, layer=layer, landmarker=str(MODEL))
        assert of_file.shape == (75, 16)
        np.testing.assert_array_equal(of_file, encoder.features_of(clip, layer=layer))


def test_what_is_no_clip_is_refused_with_its_name(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav: the file does not exist"):
        encoder.from_file(tmp_path / "gone.wav")
    (tmp_path / "text.wav").write_text("no sound, but words\n" * 50)
    with pytest.raises(ValueError, match=r"text\.wav: cannot be opened"):
        encoder.from_file(tmp_path / "text.wav")
