"""Columns of the corpora as the labels of tasks: classes and what is merged into them, votes, numbers, curves."""

import dataclasses

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, TaskConfig
from mmpretrain.data.batch_plan import BatchPlan
from mmpretrain.data.clips import open_clips
from mmpretrain.data.labels import class_weights, has_label, no_classes, sampling, task_labels
from mmpretrain.evaluation.tasks import most_voted
from tests.corpus_fixture import make_clip, write_corpus

COLUMNS = {"emotion": "class", "votes": "classes", "tags": "classes", "level": "value", "humour": "class"}
SAID = (
    {"emotion": "happy", "votes": ("happy", "sad", "happy", "other"), "tags": ("x", "y"), "level": 0, "humour": "no"},
    {"emotion": "excited", "votes": ("sad", "happy"), "tags": ("z",), "level": 2.0, "humour": "yes"},
    {"emotion": "sad", "votes": ("other",), "level": 7.5},
    {},
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    curve = np.linspace(-1, 1, 8).astype(np.float32)
    clips = [
        make_clip(
            f"c{i}", 8 - i, video=False, size=16, labels=said, tracks={"valence": curve[: 8 - i]} if i < 2 else {}
        )
        for i, said in enumerate(SAID)
    ]
    path = write_corpus(tmp_path_factory.mktemp("labels") / "corpus", clips, 16, 32, COLUMNS)
    return open_clips((CorpusConfig(str(path)),))


def labels(table, name, kind, *classes, **fields):
    order = np.argsort(list(table.clip_ids))
    return task_labels(table, TaskConfig(name, kind=kind, classes=classes, **fields))[order]


def test_every_kind_at_values(table):
    assert labels(table, "emotion", "class", "happy", "sad").tolist() == [0, -1, 1, -1]
    merged = labels(table, "emotion", "class", "happy", "sad", merge=("excited=happy",))
    assert merged.tolist() == [0, 0, 1, -1]
    positive = labels(table, "emotion", "binary", "sad", "positive", merge=("excited=positive", "happy=positive"))
    assert positive.tolist() == [1, 1, 0, -1]
    votes = labels(table, "votes", "votes", "happy", "sad")
    assert votes[:2] == pytest.approx(np.array([[2 / 3, 1 / 3], [0.5, 0.5]]))
    assert np.isnan(votes[2:]).all(), "votes for other classes alone are none"
    assert labels(table, "tags", "classes", "x", "z").tolist() == [[1, 0], [0, 1], [-1, -1], [-1, -1]]
    assert labels(table, "level", "value", range=(0.0, 8.0))[:3].tolist() == [0, 2, 7.5]
    assert labels(table, "level", "ordinal", "0", "2", "7.5").tolist() == [0, 1, 2, -1]
    assert labels(table, "level", "ordinal", "0", "1", "2", merge=("7.5=2",)).tolist() == [0, 2, 2, -1]
    assert labels(table, "humour", "binary", "no", "yes").tolist() == [0, 1, -1, -1]
    assert labels(table, "domain", "class", "other", "corpus", column="corpus").tolist() == [1] * 4, "its folder's name"
    curves = labels(table, "valence", "values")
    assert curves.shape == (4, 8)
    assert curves[0, -1] == 1
    assert np.isnan(curves[1, 7])
    assert np.isnan(curves[2]).all()
    assert has_label(curves).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("name", "kind", "classes", "fields", "message"),
    [
        (
            "level",
            "value",
            (),
            {"range": (0.0, 5.0)},
            r"clip 'c2': its level is 7\.5, but task level has values from 0",
        ),
        ("valence", "values", (), {"range": (-0.5, 1.0)}, r"clip 'c0': its valence is -1 in frame 0, but"),
        ("mood", "values", (), {}, r"no clip of .* has a track 'mood' \(tracks: units, valence\)"),
        ("level", "ordinal", ("low", "high"), {}, r"its column 'level' holds numbers; name these"),
        (
            "level",
            "binary",
            ("0", "2"),
            {"merge": ("high=2",)},
            r"merge is \('high=2',\), but its column 'level' holds",
        ),
        (
            "level",
            "binary",
            ("0", "2"),
            {"merge": ("2.0=0",)},
            r"a number of its column 'level' twice \(0, 2, 2\.0\)",
        ),
        ("emotion", "value", (), {}, r"is of kind 'value', but .*'emotion' .* holds 'class'; set .*kind='class' or"),
        ("votes", "class", ("happy", "sad"), {}, r"holds 'classes'; set .*kind='votes' or .*kind='classes', or name"),
        ("emotion", "class", ("happy", "glad"), {}, r"the classes of task emotion have \['glad'\]"),
        (
            "emotion",
            "class",
            ("happy", "sad"),
            {"merge": ("elated=happy",)},
            r"the classes of task emotion have \['ela",
        ),
    ],
)
def test_what_labels_cannot_be_is_one_line(table, name, kind, classes, fields, message):
    with pytest.raises(ValueError, match=message):
        labels(table, name, kind, *classes, **fields)


def test_words_and_numbers_that_are_no_class_are_counted(table):
    assert no_classes(table.label("emotion"), TaskConfig("emotion", classes=("happy", "sad"))) == (["excited"], 1)
    levels = TaskConfig("level", kind="ordinal", classes=("1", "2", "3"), merge=("0=1",))
    assert no_classes(table.label("level"), levels) == (["7.5"], 1)


def test_class_weights_are_one_on_average_and_make_classes_count_alike():
    task = TaskConfig("t", classes=("a", "b", "c"))
    of = np.array([0, 0, 0, 0, 1, 1, -1, 2])
    weights = class_weights(of, task)
    assert weights[of >= 0].mean() == pytest.approx(1)
    assert weights[of == -1] == 1
    assert [weights[of == c].sum() for c in range(3)] == pytest.approx([7 / 3] * 3)
    votes = np.array([[1, 0], [0.75, 0.25], [np.nan, np.nan]])
    weights = class_weights(votes, dataclasses.replace(task, kind="votes", classes=("a", "b")))
    assert weights == pytest.approx([2 / (2 * 1.75), 0.75 * 2 / 3.5 + 0.25 * 2 / 0.5, 1])


def test_balanced_epochs_have_as_many_clips_of_every_most_voted_class(tmp_path):
    random, votes = np.random.default_rng(0), []
    for i in range(90):  # two of three are happy, of which voters are less sure
        word, other, most = ("happy", "sad", 4) if i % 3 else ("sad", "happy", 1)
        votes.append((word,) * 5 + (other,) * int(random.integers(0, most, endpoint=True)))
    clips = [make_clip(f"c{i:02}", 8, video=False, labels={"votes": of}) for i, of in enumerate(votes)]
    table = open_clips([CorpusConfig(str(write_corpus(tmp_path / "voted", clips, 96, 112, {"votes": "classes"})))])
    task = TaskConfig("votes", kind="votes", classes=("happy", "sad"))
    classes = most_voted(task_labels(table, task))
    plan = BatchPlan(
        table.lengths, batch_frames=100, bucket_frames=(10,), multiple=1, seed=0,
        **sampling("balanced", table, classes, task),
    )  # fmt: skip
    seen = np.concatenate([plan[step].clips for step in range(plan.num_batches_per_epoch)])
    assert np.bincount(classes[seen]).tolist() == [45, 45]
