"""Intervals by speaker cover what they promise, and two classifiers are told apart where the clips allow it."""

import time
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpretrain.evaluation.comparison import Answers, compare, intervals, on_shared_clips
from mmpretrain.evaluation.metrics import METRICS, classification_metrics, figures_of

CLASSES = ("angry", "calm", "sad", "tired")


def answers(labels, predictions, speakers, classes=CLASSES) -> Answers:
    ids = tuple(f"clip{i}" for i in range(len(labels)))
    return Answers(classes, ids, tuple(speakers), np.asarray(labels), np.asarray(predictions))


def answered(right, speakers) -> Answers:
    """Right or wrong, all classes alike."""
    labels = np.arange(len(right)) % len(CLASSES)
    return answers(labels, np.where(right, labels, (labels + 1) % len(CLASSES)), speakers)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_figures_of_many_matrices_are_those_of_each(pairs):
    result = classification_metrics(*np.array(pairs).T, CLASSES)
    found = figures_of(np.stack([result.confusion, np.eye(4, dtype=int)]))
    np.testing.assert_array_equal(found.pop("recalls")[0], result.recalls)
    assert {name: values[0] for name, values in found.items()} == pytest.approx(
        {name: getattr(result, name) for name in METRICS}
    )
    assert all(values[1] == 1 for values in found.values())


@pytest.mark.parametrize("num_speakers", [4, 12])
def test_intervals_by_speaker_cover_the_truth_and_those_by_clip_do_not(num_speakers):
    """Speakers differ in how well they are understood: 60 % on average, with a deviation of 16 points."""
    random, of_each = np.random.default_rng(num_speakers), 24
    speakers = np.repeat([f"s{i}" for i in range(num_speakers)], of_each)
    covered = {"speakers": [], "clips": []}
    for corpus in range(200):
        right = random.random(len(speakers)) < np.repeat(random.beta(4.8, 3.2, num_speakers), of_each)
        for kind, known in (("speakers", speakers), ("clips", [""] * len(speakers)))[: 1 + (corpus < 100)]:
            found = intervals(answered(right, known))
            assert kind in found["resampled"]
            covered[kind].append(found["ua"]["low"] <= 0.6 <= found["ua"]["high"])
    assert 0.9 <= np.mean(covered["speakers"]) <= 0.99
    assert np.mean(covered["clips"]) < 0.85


def test_mcnemar_is_the_binomial_of_the_clips_that_one_alone_has_right():
    right = np.arange(60) < 40
    right_too = right.copy()
    right_too[:9] = False  # the first alone has nine right that the second has not
    right_too[50:53] = True  # and the second three
    found = compare(answered(right, ["s", "t"] * 30), answered(right_too, ["s", "t"] * 30))
    assert (found["only_first"], found["only_second"], found["clips"]) == (9, 3, 60)
    assert found["mcnemar_p"] == pytest.approx(2 * sum(comb(12, k) for k in range(4)) / 2**12)
    assert found["wa"]["difference"] == pytest.approx(6 / 60)


def test_a_paired_difference_is_surer_than_the_figures_and_changes_sides_with_them():
    random = np.random.default_rng(1)
    speakers = np.repeat([f"s{i}" for i in range(12)], 40)
    hard = np.repeat(random.beta(4, 3, 12), 40)
    right = random.random(480) < hard
    better = right | (random.random(480) < 0.15)
    first, second = answered(better, speakers), answered(right, speakers)
    found, turned = compare(first, second), compare(second, first)
    assert found["ua"]["low"] > 0, "told apart"
    one, other = intervals(first)["ua"], intervals(second)["ua"]
    assert one["low"] < other["high"], "though their intervals overlap"
    assert turned["ua"]["low"] == pytest.approx(-found["ua"]["high"])
    assert turned["mcnemar_p"] == found["mcnemar_p"] < 0.001


def test_equal_classifiers_are_equal():
    right = np.arange(40) % 3 > 0
    found = compare(answered(right, ["s", "t"] * 20), answered(right, ["s", "t"] * 20))
    assert found["ua"] == {"difference": 0, "low": 0, "high": 0}
    assert (found["other_answers"], found["only_first"], found["only_second"], found["mcnemar_p"]) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("speakers", "resampled", "units"),
    [
        ("abc" * 4, "3 speakers", 3),
        ("a" * 12, "12 clips, all of one speaker", 12),
        ([""] * 12, "12 clips, who speaks is not known", 12),
        (["a", "b", ""] * 4, "2 speakers and 4 clips of nobody known", 6),
    ],
)
def test_it_says_what_was_resampled(speakers, resampled, units):
    found = intervals(answered(np.arange(12) % 3 > 0, speakers))
    assert (found["resampled"], found["units"]) == (resampled, units)


def test_of_one_clip_nothing_is_known_and_the_order_of_clips_does_not_matter():
    assert intervals(answered([True], ["a"]))["ua"] == {"low": 0, "high": 1}
    random = np.random.default_rng(2)
    some = answers(random.integers(0, 4, 60), random.integers(0, 4, 60), random.choice(list("abcdef"), 60))
    again = intervals(some.take(random.permutation(60).tolist()))
    assert again["ua"] == pytest.approx(intervals(some)["ua"])


def test_two_thousand_resamples_of_a_corpus_take_no_time():
    random = np.random.default_rng(3)
    ids = random.integers(0, 8, (2, 1440))
    some = answers(*ids, [f"s{i % 24}" for i in range(1440)], tuple("abcdefgh"))
    alone = answers(*ids, [""] * 1440, tuple("abcdefgh"))
    intervals(some)
    began = time.perf_counter()
    intervals(some)
    intervals(alone)
    assert time.perf_counter() - began < 2


def test_what_does_not_compare_is_refused_and_what_both_tested_is_found():
    first = answered([True] * 8, "ab" * 4)
    with pytest.raises(ValueError, match=r"not tested on the same clips: 3 by the first alone \(clip5, clip6, clip7\)"):
        compare(first, first.take(range(5)))
    one, other = on_shared_clips(first, first.take([6, 2, 4]))
    assert one.clip_ids == other.clip_ids == ("clip2", "clip4", "clip6")
    with pytest.raises(ValueError, match=r"no clip was tested by both: the first tested clip0, .* the second clip5"):
        on_shared_clips(first.take(range(5)), first.take([5]))
    with pytest.raises(ValueError, match="clip0 has the label 'angry' for one and 'calm' for the other"):
        compare(first, answers([1, *first.labels_N[1:]], first.predictions_N, first.speakers))
    with pytest.raises(ValueError, match="clip1 has the speaker 'b' for one and 'c' for the other"):
        compare(first, answers(first.labels_N, first.predictions_N, "acababab"))
    with pytest.raises(ValueError, match="the classes differ: angry, calm, sad, tired, and a, b, c, d"):
        compare(first, answers(first.labels_N, first.predictions_N, first.speakers, tuple("abcd")))
    with pytest.raises(ValueError, match="clip0 was tested twice"):
        Answers.joined([first, first.take([0])])
