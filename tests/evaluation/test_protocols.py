import re
from pathlib import Path

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


WORDS = ("neutral", "happy", "sad", "angry")


def whole_corpus(name):
    """Clips as a protocol's corpus has them, as many of each speaker and class as make its official counts."""
    if name.startswith("crema"):
        takes = [(word, 14) for word in ("angry", "disgust", "fearful", "happy", "sad")] + [("neutral", 12)]
        rows = [
            row(f"{actor}_{word}_{i}", f"crema-{actor}", word)
            for actor in range(1001, 1092)
            for word, count in takes
            for i in range(count)
        ]
        spare = {"angry": 3, "disgust": 3, "fearful": 3, "happy": 3, "sad": 3, "neutral": 5}  # 91 x 82 are 20 too many
        for word, count in spare.items():
            theirs = [r for r in rows if r.labels["emotion"] == word][-count:]
            rows = [r for r in rows if r not in theirs]
        lost = iter(("IEO_DIS_MD", "TIE_SAD_XX", "MTI_NEU_XX", "MTI_SAD_XX"))
        for actor, word in (("1064", "disgust"), ("1064", "sad"), ("1076", "neutral"), ("1076", "sad")):
            at = next(i for i, r in enumerate(rows) if r.clip_id.startswith(f"{actor}_{word}_"))
            rows[at] = row(f"{actor}_{next(lost)}", f"crema-{actor}", word)
        return rows
    sizes = {
        "iemocap-5": [1085, 1023, 1151, 1031, 1241], "iemocap-10": [1085, 1023, 1151, 1031, 1241],
        "improv-6": [916, 1328, 1622, 1044, 1407, 1470],
    }  # fmt: skip
    if name in sizes:
        return [
            row(f"{k}-{i}", f"{name.split('-')[0]}-{k}{'FM'[i % 2]}", WORDS[i % 4])
            for k, size in enumerate(sizes[name], start=1)
            for i in range(size)
        ]
    words = ("neutral", "happy", "sad", "angry", "fearful", "disgust", "boredom")
    return [
        row(f"{i}", f"emodb-{speaker:02d}", words[i % 7])
        for i, speaker in enumerate(s for s in (3, *range(8, 17)) for _ in range(54 if s < 12 else 53))
    ]


@pytest.mark.parametrize(
    ("name", "folds", "total"),
    [
        ("crema-5", 5, 7438), ("crema-5-4class", 5, 4897), ("iemocap-5", 5, 5531), ("iemocap-10", 10, 5531),
        ("improv-6", 6, 7787), ("emodb-loso", 10, 535),
    ],
)  # fmt: skip
def test_the_official_counts_are_those_of_the_whole_corpus_and_what_is_not_there_is_said(name, folds, total):
    rows, protocol = whole_corpus(name), get_protocol(name)
    classes = WORDS if name.endswith("4class") else sorted({r.labels["emotion"] for r in rows})
    index = index_of(rows)
    dealt = {k: protocol.fold(index, k, classes, column="emotion") for k in range(1, protocol.num_folds + 1)}
    assert protocol.num_folds == folds
    assert sum(len(fold.test) for fold in dealt.values()) == total
    assert protocol.lacks(index, dealt, len(classes)) == ""
    fewer = index_of([r for r in rows if r.speaker != rows[0].speaker] + rows[:1])
    dealt = {k: protocol.fold(fewer, k, classes, column="emotion") for k in range(1, protocol.num_folds + 1)}
    assert f"clips in place of {total:,}" in protocol.lacks(fewer, dealt, len(classes)) or name[:3] in "iemocap-5improv"
    without = index_of([r for r in rows if r.speaker != rows[-1].speaker])
    if protocol.speakers == folds:  # then its fold is empty
        with pytest.raises(ValueError, match="no labelled clip in its"):
            [protocol.fold(without, k, classes, column="emotion") for k in range(1, folds + 1)]
    else:
        dealt = {k: protocol.fold(without, k, classes, column="emotion") for k in range(1, folds)}
        found = protocol.lacks(without, dealt, len(classes))
        assert f"{protocol.speakers - 1} of its {protocol.speakers} speakers are there" in found


def test_speakers_of_one_session_are_chosen_by_others_of_another():
    rows, protocol = whole_corpus("iemocap-10"), get_protocol("iemocap-10")
    for number in range(1, 11):
        fold = protocol.fold(index_of(rows), number, column="emotion")
        (tested,), (validated,) = ({rows[i].speaker for i in part} for part in (fold.test, fold.validation))
        assert tested[:-1] != validated[:-1], "the other of a session heard the same room"


def test_dialogues_are_whole_and_session_5_is_tested():
    rows = [
        IndexRow(
            f"{k}{d}{i}", 9, ("audio",), "train", f"iemocap-{k}{'FM'[i % 2]}",
            {"emotion": "excited", "dialogue": f"Ses{k}-{d}"}, 0, 0,
        )
        for k in range(1, 6) for d in range(30) for i in range(4)
    ]  # fmt: skip
    index = Index.of(rows, {"emotion": "class", "dialogue": "class"})
    classes = ("neutral", "happy", "sad", "angry", "excited", "frustrated")
    protocol = get_protocol("iemocap-6class-dialogue")
    fold = protocol.fold(index, 1, classes, column="emotion")
    assert {rows[i].speaker for i in fold.test} == {"iemocap-5F", "iemocap-5M"}
    dialogues = [{rows[i].labels["dialogue"] for i in part} for part in (fold.train, fold.validation, fold.test)]
    assert sum(map(len, dialogues)) == len(set().union(*dialogues)) == 150
    assert 4 <= len(dialogues[1]) <= 24
    assert protocol.lacks(index, {1: fold}, 6) == "its test parts have 120 clips in place of 1,623"


def test_muse_tests_the_development_part_and_validates_on_people_of_the_training_part():
    parts = {"train": 20, "validation": 6, "test": 5}
    rows = [
        IndexRow(f"{split}{p}{i}", 9, ("audio",), split, f"muse-{split}{p}", {"fear": 0.1 * i}, 0, 0)
        for split, people in parts.items() for p in range(people) for i in range(3)
    ]  # fmt: skip
    index = Index.of(rows, {"fear": "value"})
    fold = get_protocol("muse-2022").fold(index, 1, column="fear")
    assert {rows[i].split for i in fold.test} == {"validation"}
    assert {rows[i].split for part in (fold.train, fold.validation) for i in part} == {"train"}
    assert (len(fold.train), len(fold.validation), len(fold.test)) == (48, 12, 18)
    with pytest.raises(ValueError, match=r"protocol `muse-2023` is about humor or .*of the label 'fear'"):
        get_protocol("muse-2023").fold(index, 1, column="fear")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"unknown protocol `ravdess`; known are official, official-clips, ravdess-6x4, .*speakers-K"
    ):
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
        ("meld-official", [row("a", "iemocap-1F")], 1, "its speaker `iemocap-1F` is not of meld, whose are called"),
        ("emodb-loso", [row("a", "crema-1001")], 1, "`crema-1001` is none of this protocol's (emodb-03 to emodb-16)"),
        ("speakers-5", [row("a", f"s{i}") for i in range(4)], 1, "only 4 speakers; use speakers-4"),
        ("speakers-5", [row("a", f"s{i}") for i in range(2)], 1, "only 2 speakers; use official"),
        ("speakers-5", [row("a", "s")], 1, "only 1 speaker; use official (the corpus's own splits), or clips-5 ("),
        ("speakers-3", [row("a", "s"), row("b", "")], 1, "clip b has no speaker; name the speakers"),
    ],
)
def test_what_a_protocol_cannot_do_is_said(name, rows, fold, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        get_protocol(name).fold(index_of(rows), fold, column="emotion")


def test_every_protocol_is_told_of():
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    with pytest.raises(ValueError, match="known are") as raised:
        get_protocol("?")
    names = str(raised.value).split("known are ")[1].split(", speakers-K")[0].split(", ")
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in text] == []


def test_other_classes_than_a_protocol_tells_apart_are_refused():
    index = index_of([row("a", "crema-1001")])
    with pytest.raises(ValueError, match="`crema-5-4class` tells apart neutral, happy, sad, angry, and the task happy"):
        get_protocol("crema-5-4class").fold(index, 1, ("happy", "disgust"), column="emotion")


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


def test_a_corpus_is_tested_by_what_the_others_taught(ravdess):
    others = [row(f"c{i}", f"crema-{1001 + i % 5}", "happy") for i in range(40)]
    fold = get_protocol("onto-crema").fold(index_of(ravdess + others), 1, column="emotion")
    assert fold.test.tolist() == list(range(len(ravdess), len(ravdess) + 40))
    assert len(actors(ravdess, fold.validation)) == 5
    assert len(actors(ravdess, fold.train)) == 19
    several = [row(f"meld/{i}", "meld-Joey" if i % 3 else "", "happy") for i in range(9)]
    several += [row(f"own/{i}", f"p{i}" if i % 2 else "", "happy") for i in range(6)]
    fold = get_protocol("onto-meld").fold(index_of(several), 1, column="emotion")
    assert fold.test.tolist() == list(range(9)), "those of nobody named too: nothing is learned of its own labels"
    assert {9, 11, 13} <= {*fold.train.tolist()}
    with pytest.raises(ValueError, match=r"protocol `onto-iemocap`, fold 1: no labelled clip in its test part"):
        get_protocol("onto-iemocap").fold(index_of(ravdess), 1, column="emotion")
    with pytest.raises(ValueError, match="unknown protocol `onto`"):
        get_protocol("onto")
