"""Labels of every frame: where they come from, and how they go along with the frames of a batch."""

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, DataConfig, TaskConfig
from mmpretrain.data.batch import make_batch
from mmpretrain.data.batch_plan import PlannedBatch
from mmpretrain.data.clips import open_clips
from mmpretrain.data.frame_labels import with_classes
from mmpretrain.data.labels import task_labels
from mmpretrain.evaluation.tasks import TASK_METRICS
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model

UNITS = TaskConfig("units", kind="frames", classes=("sil", "a", "b", "c"), silence="sil")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    words = np.array([-1, -1, 0, 0, 0, 1, 1, -1, 2, 2], np.int32)
    clips = [
        make_clip("a/x", 10, video=False, labels={"text": "go on go"}, tracks={"words": words}, size=IMAGE_SIZE),
        make_clip("a/y", 6, video=False, size=IMAGE_SIZE),
    ]
    path = write_corpus(tmp_path_factory.mktemp("corpora") / "c", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    return open_clips([CorpusConfig(str(path))])


def test_a_track_is_a_class_of_every_frame(table):
    labels = task_labels(table, UNITS)
    assert labels.dtype == np.int32
    assert labels.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 0, 1, -1, -1, -1, -1]]
    few = TaskConfig("units", kind="frames", classes=("a", "b"))
    with pytest.raises(
        ValueError, match=r"clip 'a/x': its track 'units' is int32 \[10\] with values up to 3.* its 2 cl"
    ):
        task_labels(table, few)
    with pytest.raises(ValueError, match=r"no clip of .* has a track 'eyes' \(tracks: units, words\)"):
        task_labels(table, TaskConfig("eyes", kind="frames", classes=("a", "b")))


def test_words_of_a_track_are_those_of_the_text(table):
    task = with_classes(table, TaskConfig("words", kind="frames", silence="-"))
    assert task.classes == ("-", "go", "on")
    labels = task_labels(table, task)
    assert labels[0].tolist() == [0, 0, 1, 1, 1, 2, 2, 0, 1, 1]
    assert (labels[1] == -1).all(), "a clip without the track has no labels"
    assert task_labels(table, TaskConfig("words", kind="frames", classes=("go", "on")))[0].tolist() == [
        -1, -1, 0, 0, 0, 1, 1, -1, 0, 0,
    ]  # fmt: skip


def test_words_and_phones_of_alignments(table, tmp_path):
    file = tmp_path / "words.csv"
    file.write_text("clip,start_s,end_s,word\nx,0.0,0.08,sil\nx,0.08,0.16,bin\nx,0.16,0.24,at\n")
    task = with_classes(table, TaskConfig("words", kind="frames", alignments=str(file), silence="sil"))
    assert task.classes == ("at", "bin", "sil")
    assert task_labels(table, task)[0].tolist() == [2, 2, 1, 1, 0, 0, -1, -1, -1, -1]
    phones = with_classes(table, TaskConfig("p", column="phones", kind="frames", alignments=str(file)))
    assert set(phones.classes) == {"sil", "B", "IH", "N", "AE", "T"}
    with pytest.raises(ValueError, match=r"alignments hold words and phones, not 'visemes'"):
        task_labels(table, TaskConfig("visemes", kind="frames", alignments=str(file)))


def test_labels_go_along_with_their_frames(table):
    labels = {"units": task_labels(table, UNITS)}
    planned = PlannedBatch(0, 0, 7, np.array([0, 1, -1]), np.array([0, 0, 0]))
    for train in (True, False):
        batch = make_batch(
            planned, table, model=tiny_model("audio"), data=DataConfig(), train=train, seed=3, labels=labels,
            of_frames=("units",),
        )  # fmt: skip
        found = batch.labels["units"]
        start = found[0, 0]
        assert found[0].tolist() == [(start + i) % 4 for i in range(7)], "of the same stretch as the sound"
        assert start == 0 or train
        assert found[1].tolist() == [0, 1, 2, 3, 0, 1, -1]
        assert (found[2] == -1).all()


def test_metrics_of_frames():
    labels = np.array([[0, 1, 1, 2], [3, -1, -1, -1]])
    logits = 9.0 * np.eye(4)[[[0, 1, 2, 2], [3, 0, 0, 0]]]
    found = TASK_METRICS["frames"].of(labels, logits, UNITS)
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["error"] == 0, "the sequences are a b and c: where one ends and the next begins is of no account"
    assert found["loss"] == pytest.approx((4 * 0.00037 + 9) / 5, rel=1e-2)
