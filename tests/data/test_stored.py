"""Sound and pictures in files of their own: what comes back, what is read for it, and shards that are damaged."""

import functools

import numpy as np
import pytest

from data_prep.builder import write_dataset
from mmpretrain import records
from mmpretrain.config import CorpusConfig, DataConfig
from mmpretrain.data.batch import make_batch
from mmpretrain.data.batch_plan import PlannedBatch
from mmpretrain.data.clips import open_clips
from mmpretrain.data.unreadable import Unreadable
from mmpretrain.files import DamagedError
from mmpretrain.prepared import finish_corpus
from mmpretrain.storage import COMPRESSIONS, VIEWS, shard_path
from tests.corpus_fixture import make_clip
from tests.tiny import tiny_model

SIZE, SHARDS = 16, 5
CLIPS = [
    make_clip(f"c{i}", 10 + i, size=SIZE, labels={"emotion": "sad", "text": "a b"}, speaker="s", info={"n": i},
              audio=i != 3, video=i != 4)
    for i in range(10)
]  # fmt: skip
SCHEMA = records.Schema(SIZE, SIZE + 16, records.TRUE_UNITS, {"emotion": "class", "text": "text"})


def write(path, compression="none"):
    """Two clips a shard."""
    shards = [functools.partial(iter, CLIPS[2 * shard : 2 * shard + 2]) for shard in range(SHARDS)]
    indices = write_dataset(path, {"train": shards}, SCHEMA, compression)
    finish_corpus(path, path.name, SCHEMA, indices, wall_time_sec=0)
    return path


def open_table(path, **options):
    return open_clips([CorpusConfig(str(path))], **options)


def shard(path, view, number):
    return shard_path(records.dataset_dir(path), view, "train", number, SHARDS)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_all_of_a_clip_comes_back(tmp_path, compression):
    table = open_table(write(tmp_path / "c", compression))
    for row, clip in enumerate(CLIPS):
        loaded = table.load(row)
        for view in VIEWS:
            np.testing.assert_array_equal(getattr(loaded, view), getattr(clip, view))
            assert getattr(loaded, view).dtype == getattr(clip, view).dtype
        assert records.IndexRow.of(loaded, SCHEMA) == table.index.row(row)
        assert (loaded.labels, loaded.info, loaded.num_frames) == (clip.labels, clip.info, clip.num_frames)


def test_nothing_is_read_that_a_model_does_not_use(tmp_path):
    path = write(tmp_path / "c")
    table = open_table(path)
    for number in range(SHARDS):  # what is not opened may as well be gone
        for view in ("mouth", "face", "clips"):
            shard(path, view, number).unlink()
    rows = np.arange(10)
    of_sound = PlannedBatch(0, 0, 19, rows, rows * 0)
    batch = make_batch(of_sound, table, model=tiny_model("audio"), data=DataConfig(), train=True, seed=0)
    assert batch.valid_BT.any(1).all()
    assert batch.inputs["audio"][batch.present["audio"]].any((1, 2)).all()


def test_of_two_views_one_is_read(tmp_path):
    path = write(tmp_path / "c")
    table = open_table(path)
    for number in range(SHARDS):
        shard(path, "face", number).unlink()
    rows = np.arange(10)
    planned = PlannedBatch(0, 0, 19, rows, rows * 0)
    batch = make_batch(planned, table, model=tiny_model("video"), data=DataConfig(), train=True, seed=0)
    assert batch.present["video"].tolist() == [row != 4 for row in range(10)]
    assert batch.valid_BT.any(1).all()


def test_a_damaged_shard_costs_its_own_clips(tmp_path):
    path = write(tmp_path / "c")
    shard(path, "audio", 1).write_bytes(shard(path, "audio", 1).read_bytes()[:100])
    shard(path, "mouth", 2).unlink()
    with pytest.raises(
        DamagedError, match=r"audio-train\.array_record-00001.* and .*mouth.*00002.*is missing; prepare"
    ):
        open_table(path, unreadable=Unreadable(0.3))
    lines = []
    table = open_table(path, unreadable=Unreadable(0.4, lines.append))
    assert "4 clips will be passed over" in lines[0]
    rows = np.arange(10)
    batch = make_batch(
        PlannedBatch(0, 0, 19, rows, rows * 0), table, model=tiny_model("audio", "video"), data=DataConfig(),
        train=False, seed=0,
    )  # fmt: skip
    # Of clip 3 no sound is stored, hence none is missed; clip 4 has no picture.
    assert np.flatnonzero(~batch.valid_BT.any(1)).tolist() == [2, 5]
    assert table.unreadable.clip_ids == ["c2", "c5"]


def test_pictures_that_the_schema_does_not_fit_are_not_written():
    wrong = make_clip("wide", 5, size=SIZE + 2)
    with pytest.raises(
        ValueError, match=r"'wide': mouth is uint8 \[5, 18, 18\], but its corpus has uint8 \['T', 16, 16"
    ):
        records.encode_clip(wrong, SCHEMA)
