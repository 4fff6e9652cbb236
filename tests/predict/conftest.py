"""A tiny encoder with a head of three emotions, as a folder, and real clips where they are at hand."""

import os
from pathlib import Path

import pytest

from mmpretrain.config import InputConfig
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.heads import ClipHead
from tests.export.encoder_folders import LINEAGE, TASK, TASKS, save
from tests.tiny import initial, tiny_model

SHARED = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[2].parent / "shared"))
LANDMARKER = SHARED / "models" / "face_landmarker.task"
CROP_SIZE = 32


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> Path:
    from flax import nnx

    config = tiny_model("audio", "video", inputs=InputConfig(image_size=28))
    module = nnx.merge(*initial(lambda rngs: AVEncoder(config, rngs=rngs)))
    heads = nnx.Dict({TASK.name: nnx.merge(*initial(lambda rngs: ClipHead(config, 3, rngs=rngs)))})
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    save_encoder(folder, module, lineage=LINEAGE, tasks=[TASK], heads=heads, crop_size=CROP_SIZE)
    return folder


@pytest.fixture(scope="session")
def every_head(tmp_path_factory) -> Path:
    """Of an encoder of sound and picture with a head of every kind."""
    folder = tmp_path_factory.mktemp("heads") / "encoder"
    save(folder, tiny_model("audio", "video", inputs=InputConfig(image_size=28)), tasks=TASKS)
    return folder


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real recordings."""
    if not LANDMARKER.is_file() or not (SHARED / "data" / "av").is_dir():
        pytest.skip(f"no real clips or no landmarker under {SHARED}; set MMPRETRAIN_SHARED_DIR")
    return SHARED / "data" / "av"
