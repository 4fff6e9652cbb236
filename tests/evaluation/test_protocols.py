import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpretrain.evaluation.metrics import classification_metrics
from mmpretrain.evaluation.protocols import get_protocol, summarize_folds
from mmpretrain.index import Index
from mmpretrain.records import IndexRow

RAVDESS_EMOTIONS = ("calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def row(clip_id, speaker, emotion="happy", split="train"):
    return IndexRow(clip_id, 50, ("audio", "video"), split, speaker, {"emotion": emotion} if emotion else {}, 0, 0)


def index_of(rows):
    return Index.of(rows, {"emotion": "class"})


@pytest.fixture(scope="module")
def ravdess():
    takes = ["neutral"] * 4 + [emotion for emotion in RAVDESS_EMOTIONS for _ in range(8)]
    return [
        row(f"{a:02d}-{i:02d}", f"ravdess-{a:02d}", emotion) for a in range(1, 25) for i, emotion in enumerate(takes)
    ]


def actors(rows, positions):
    return sorted({int(rows[i].speaker.split("-")[1]) for i in positions})


@pytest.mark.parametrize("name", ["ravdess-6x4", "ravdess-5", "ravdess-emobox6", "speakers-6"])
def test_every_clip_is_tested_once_and_no_subject_crosses(ravdess, name):
    protocol = get_protocol(name)
    tested = []
    for number in range(1, protocol.num_folds + 1):
        fold = protocol.fold(index_of(ravdess), number, column="emotion")
        parts = [fold.train, fold.validation, fold.test]
        assert sorted(np.concatenate(parts).tolist()) == list(range(1440))
        assert len(set().union(*(actors(ravdess, part) for part in parts))) == 24
        assert sum(len(actors(ravdess, part)) for part in parts) == 24
        assert all(part.dtype == np.int64 for part in parts)
        tested.extend(fold.test.tolist())
    assert sorted(tested) == list(range(1440))


def test_ravdess_6x4_tests_four_actors_in_order_and_validates_on_the_next_four(ravdess):
    protocol = get_protocol("ravdess-6x4")
    first, last = (
        protocol.fold(index_of(ravdess), 1, column="emotion"),
        protocol.fold(index_of(ravdess), 6, column="emotion"),
    )
    assert actors(ravdess, first.test) == [1, 2, 3, 4]
    assert actors(ravdess, first.validation) == [5, 6, 7, 8]
    assert (len(first.train), len(first.validation), len(first.test)) == (960, 240, 240)
    assert actors(ravdess, last.test) == [21, 22, 23, 24]
    assert actors(ravdess, last.validation) == [1, 2, 3, 4]


def test_other_lists_are_those_of_their_authors(ravdess):
    assert actors(ravdess, get_protocol("ravdess-5").fold(index_of(ravdess), 5, column="emotion").test) == [1, 4, 9, 22]
    assert actors(ravdess, get_protocol("ravdess-emobox6").fold(index_of(ravdess), 1, column="emotion").test) == [
        1,
        11,
        20,
        21,
    ]
    assert actors(ravdess, get_protocol("ravdess-emobox6").fold(index_of(ravdess), 2, column="emotion").test) == [
        4,
        10,
        12,
        14,
    ]


def test_crema_5_leaves_out_the_unreadable_clips():
    rows = [
        row(f"{actor}_{take}", f"crema-{actor}") for actor in range(1001, 1092) for take in ("ITS_HAP_XX", "MTI_NEU_XX")
    ]
    protocol = get_protocol("crema-5")
    folds = [protocol.fold(index_of(rows), number, column="emotion") for number in range(1, 6)]
    assert [len(actors(rows, fold.test)) for fold in folds] == [18, 18, 18, 18, 19]
    seen = {rows[i].clip_id for fold in folds for i in fold.test}
    assert {r.clip_id for r in rows} - seen == {"1076_MTI_NEU_XX"}


def test_clips_without_an_emotion_or_of_other_classes_appear_nowhere(ravdess):
    rows = [row("silent", "", ""), *ravdess]
    fold = get_protocol("ravdess-6x4").fold(index_of(rows), 2, classes=("neutral", "happy"), column="emotion")
    positions = np.concatenate([fold.train, fold.validation, fold.test])
    assert 0 not in positions
    assert {rows[i].labels["emotion"] for i in positions} == {"neutral", "happy"}
    assert len(positions) == 24 * 12


def test_official_follows_the_splits_of_the_corpus():
    rows = [row(f"c{i}", f"s{i}", split=split) for i, split in enumerate(["test", "train", "validation", "train"])]
    fold = get_protocol("official").fold(index_of(rows), 1, column="emotion")
    assert (fold.train.tolist(), fold.validation.tolist(), fold.test.tolist()) == ([1, 3], [2], [0])


@given(st.lists(st.integers(1, 30), min_size=3, max_size=30), st.integers(3, 8), st.randoms(use_true_random=False))
def test_speaker_folds_of_any_corpus_are_disjoint_balanced_and_do_not_depend_on_order(sizes, num_folds, random):
    num_folds = min(num_folds, len(sizes))
    rows = [row(f"s{s}-{i}", f"s{s}") for s, size in enumerate(sizes) for i in range(size)]
    shuffled = random.sample(rows, len(rows))
    protocol = get_protocol(f"speakers-{num_folds}")
    tests = []
    for number in range(1, num_folds + 1):
        fold = protocol.fold(index_of(rows), number, column="emotion")
        parts = [{rows[i].speaker for i in part} for part in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, parts)) == len(set().union(*parts)) == len(sizes)
        again = protocol.fold(index_of(shuffled), number, column="emotion")
        for part in ("train", "validation", "test"):
            ids = {rows[i].clip_id for i in getattr(fold, part)}
            assert ids == {shuffled[i].clip_id for i in getattr(again, part)}
        tests.append(len(fold.test))
    assert sum(tests) == len(rows)
    assert max(tests) - min(tests) <= max(sizes)


@pytest.mark.parametrize(("name", "corpus", "sessions"), [("iemocap-5", "iemocap", 5), ("improv-6", "improv", 6)])
def test_sessions_of_two_people_are_tested_whole(name, corpus, sessions):
    rows = [row(f"{k}{sex}", f"{corpus}-{k}{sex}") for k in range(1, sessions + 1) for sex in "FM"]
    protocol = get_protocol(name)
    assert protocol.num_folds == sessions
    for number in range(1, sessions + 1):
        fold = protocol.fold(index_of(rows), number, column="emotion")
        assert [rows[i].speaker for i in fold.test] == [f"{corpus}-{number}F", f"{corpus}-{number}M"]
        assert len(fold.train) == 2 * sessions - 4


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown protocol `ravdess`; known are official, ravdess-6x4, .*speakers-K"):
        get_protocol("ravdess")
    with pytest.raises(ValueError, match="use `speakers-3`"):
        get_protocol("speakers-2")


@pytest.mark.parametrize(
    ("name", "rows", "fold", "message"),
    [
        ("official", [row("a", "x")], 2, "fold 2: protocol `official` has folds 1 to 1"),
        (
            "official",
            [row("a", "x", "")],
            1,
            "none of the 1 clips has a label 'emotion'; fine-tune on a",
        ),
        ("official", [row("a", "x")], 1, "no labelled clip in its validation part"),
        (
            "official",
            [row(s, "x", split=s) for s in ("train", "validation", "test")],
            1,
            "speaker x is both in train and in validation; split the corpus by speaker, or use the protocol "
            "`speakers-5`",
        ),
        (
            "ravdess-6x4",
            [row("a", "M003")],
            1,
            "its speaker `M003` is none of this protocol's (ravdess-01 to ravdess-24)",
        ),
        ("ravdess-6x4", [row("a", "ravdess-25")], 1, "its speaker `ravdess-25` is none of this protocol's"),
        ("ravdess-6x4", [row("a", "ravdess-01")], 1, "no labelled clip in its train part"),
        (
            "ravdess-6x4",
            [row("a", f"ravdess-{actor:02d}") for actor in (5, 9)],
            1,
            "no labelled clip in its test part (RAVDESS, test actors 1-4, 5-8",
        ),
        ("speakers-5", [row("a", f"s{i}") for i in range(4)], 1, "only 4 speakers; use speakers-4"),
        ("speakers-5", [row("a", f"s{i}") for i in range(2)], 1, "only 2 speakers; use official"),
        ("speakers-3", [row("a", "s"), row("b", "")], 1, "clip b has no speaker; name the speakers"),
    ],
)
def test_what_a_protocol_cannot_do_is_said(name, rows, fold, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        get_protocol(name).fold(index_of(rows), fold, column="emotion")


def test_summary_of_folds_has_mean_std_and_pooled_value():
    good = classification_metrics([0, 1], [0, 1], ("angry", "sad"))
    bad = classification_metrics([0] * 6 + [1] * 2, [1] * 6 + [0, 1], ("angry", "sad"))
    summary = summarize_folds([good, bad])
    assert summary["num_folds"] == 2
    assert summary["wa"] == pytest.approx({"mean": (1 + 1 / 8) / 2, "std": 7 / 8 / 2**0.5, "pooled": 3 / 10})
    assert summary["ua"]["pooled"] == pytest.approx((1 / 7 + 2 / 3) / 2)
    assert summarize_folds([good])["ua"] == {"mean": 1.0, "std": 0.0, "pooled": 1.0}


def test_folds_of_clips_hold_clips_of_one_person_out_and_more_clips_move_none():
    rows = [row(f"c{i}", "one") for i in range(400)]
    protocol = get_protocol("clips-5")
    tested = [protocol.fold(index_of(rows), fold, column="emotion").test for fold in range(1, 6)]
    assert sorted(np.concatenate(tested)) == list(range(400))
    assert min(map(len, tested)) > 50
    fold = protocol.fold(index_of(rows), 5, column="emotion")
    assert fold.validation.tolist() == tested[0].tolist()
    fewer = protocol.fold(index_of(rows[100:]), 5, column="emotion")
    assert [100 + i for i in fewer.test] == [i for i in fold.test if i >= 100]
    with pytest.raises(ValueError, match="use `clips-3`"):
        get_protocol("clips-2")
    splits = [row(f"c{i}", "one", split=split) for i, split in enumerate(("train", "validation", "test"))]
    assert get_protocol("official-clips").fold(index_of(splits), 1, column="emotion").test.tolist() == [2]
    with pytest.raises(ValueError, match="speaker one is both in"):
        get_protocol("official").fold(index_of(splits), 1, column="emotion")
