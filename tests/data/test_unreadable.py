"""Clips whose records are damaged: rows without frames in a batch, counted, and too many of them are refused."""

import functools

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, DataConfig, TaskConfig
from mmpretrain.data.batch import empty_batch, make_batch
from mmpretrain.data.batch_plan import PlannedBatch
from mmpretrain.data.clips import open_clips
from mmpretrain.data.disturbed import babble_of
from mmpretrain.data.frame_labels import with_classes
from mmpretrain.data.stored import RecordSource
from mmpretrain.data.unreadable import Unreadable, UnreadableClipError
from mmpretrain.data.workers import Workers
from tests.corpus_fixture import damage_record, make_clip, write_corpus
from tests.tiny import tiny_model

FRAMES = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    clips = [make_clip(f"c{i}", FRAMES, size=16, labels={"emotion": "sad"}) for i in range(10)]
    path = write_corpus(tmp_path_factory.mktemp("corpora") / "hurt", clips, 16, 32)
    damage_record(path)
    return str(path)


class Constant:
    def of(self, row, clip):
        return np.full(clip.num_frames, 3, np.int32)


def batch_of(table, train):
    rows = np.arange(len(table))
    return make_batch(
        PlannedBatch(0, 0, FRAMES, rows, rows * 0), table, model=tiny_model("audio", "video"), data=DataConfig(),
        train=train, seed=0, targets=[Constant()], labels={"emotion": np.ones(len(table), np.int32)},
    )  # fmt: skip


@pytest.mark.parametrize("train", [True, False])
def test_a_clip_that_cannot_be_read_is_a_row_without_frames_the_same_each_time(corpus, train):
    lines = []
    table = open_clips([CorpusConfig(corpus)], unreadable=Unreadable(0.1, lines.append))
    batch, again = batch_of(table, train), batch_of(table, train)
    (bad,) = np.flatnonzero(~batch.valid_BT.any(1))
    assert batch.clip_B.tolist() == list(range(10))
    blank = empty_batch(
        1, FRAMES, tiny_model("audio", "video"), num_codebooks=1, labels={"emotion": np.ones(1, np.int32)}
    )
    for name, of_blank in {**blank.inputs, **blank.labels}.items():
        np.testing.assert_array_equal((batch.inputs | batch.labels)[name][bad], of_blank[0])
    assert not any(has[bad] for has in batch.present.values())
    assert (batch.targets_BTS[bad] == -1).all()
    others = np.delete(np.arange(10), bad)
    assert batch.valid_BT[others].all()
    assert (batch.targets_BTS[others] == 3).all()
    for name in batch.inputs:
        np.testing.assert_array_equal(batch.inputs[name], again.inputs[name])
    assert table.unreadable.clip_ids == [table.clip_ids[bad]]
    assert len(lines) == 1, "said once, however often it is met"
    assert "1 of 10 clips so far: clip 'c" in lines[0]


def test_what_a_worker_passes_over_is_told_and_counted_once(corpus):
    lines = []
    table = open_clips([CorpusConfig(corpus)], unreadable=Unreadable(0.1, lines.append))
    rows = np.arange(len(table))
    plans = [PlannedBatch(step, 0, FRAMES, rows, rows * 0) for step in range(3)]
    load = functools.partial(
        make_batch, table=table, model=tiny_model("audio"), data=DataConfig(), train=True, seed=0,
    )  # fmt: skip
    with Workers(load, 2, table.unreadable) as workers:
        lost = [int((~batch.valid_BT.any(1)).sum()) for _, batch in workers.map(plans, 0, len(plans))]
    assert lost == [1, 1, 1]
    assert len(lines) == len(table.unreadable.clip_ids) == 1
    strict = open_clips([CorpusConfig(corpus)], unreadable=Unreadable(0.09))
    with (
        Workers(functools.partial(load.func, **load.keywords | {"table": strict}), 1, strict.unreadable) as workers,
        pytest.raises(ValueError, match=r"1 of 10 clips .* data\.max_unreadable_share=0\.09 allows"),
    ):
        list(workers.map(plans, 0, len(plans)))


def test_more_than_the_share_are_refused_with_the_list(corpus):
    table = open_clips([CorpusConfig(corpus)], unreadable=Unreadable(0.09))
    with pytest.raises(ValueError, match=r"1 of 10 clips .* data\.max_unreadable_share=0\.09 allows: 'c\d'; .*again"):
        batch_of(table, train=True)
    strict = open_clips([CorpusConfig(corpus)])
    with pytest.raises(UnreadableClipError, match=r"clip 'c\d' \(record \d of 'train' in .*hurt\) cannot be read"):
        [strict.load(row) for row in range(10)]


def test_babble_and_the_words_that_occur_are_of_the_clips_that_can_be_read(corpus, tmp_path, monkeypatch):
    table = open_clips([CorpusConfig(corpus)], unreadable=Unreadable(0.1))
    assert np.abs(babble_of(table)).max() == 20_000
    (bad,) = table.unreadable.clip_ids
    assert bad in table.clip_ids

    spoken = {"labels": {"text": "go"}, "tracks": {"words": np.zeros(8, np.int32)}}
    clips = [make_clip(f"w{i}", 8, video=False, size=16, **spoken) for i in range(6)]
    path, described = str(write_corpus(tmp_path / "words", clips, 16, 32)), RecordSource.described

    def but_the_first(source, record):
        if record == 0:
            raise OSError("damaged")
        return described(source, record)

    monkeypatch.setattr(RecordSource, "described", but_the_first)
    words = open_clips([CorpusConfig(path)], unreadable=Unreadable(0.2))
    assert with_classes(words, TaskConfig("words", kind="frames")).classes == ("go",)
    assert words.unreadable.clip_ids == [words.clip_ids[0]]
