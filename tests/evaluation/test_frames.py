"""Figures of frames: sequences without repeats, their distance, and intervals over draws and speakers."""

import functools

import numpy as np
import pytest

from mmpretrain.evaluation.frame_probe import discriminants, with_context
from mmpretrain.evaluation.frames import Rates, collapsed, count, distances


def test_repeats_are_put_together_before_silence_goes():
    ids = np.array([0, 1, 1, 0, 0, 1, 2, 2, 2, 0])
    assert collapsed(ids).tolist() == [0, 1, 0, 1, 2, 0]
    assert collapsed(ids, silence=0).tolist() == [1, 1, 2]
    assert collapsed(ids[:0], silence=0).tolist() == []


def test_distance_is_the_fewest_edits():
    def slow(a, b):
        @functools.cache
        def of(i, j):
            if not i or not j:
                return i + j
            return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

        return of(len(a), len(b))

    random = np.random.default_rng(0)
    firsts, seconds = ([random.integers(0, 4, random.integers(0, 9)) for _ in range(50)] for _ in range(2))
    expected = [slow(a.tolist(), b.tolist()) for a, b in zip(firsts, seconds, strict=True)]
    assert distances(firsts, seconds).tolist() == expected
    assert distances([], []).tolist() == []


def test_frames_that_are_not_known_count_nowhere_and_errors_are_of_all_clips():
    labels = [np.array([0, 1, 1, 2, -1, -1]), np.array([2, 2])]
    said = [np.array([0, 1, 3, 2, 7, 7, 9, 9]), np.array([2, 2, 5])]
    counts = count(labels, said, silence=0)
    assert [counts.frames.tolist(), counts.right.tolist()] == [[4, 2], [3, 2]]
    assert [counts.units.tolist(), counts.errors.tolist()] == [[2, 1], [1, 0]], "1 3 2 for 1 2"
    assert [counts.error, counts.accuracy] == pytest.approx([1 / 3, 5 / 6])
    with pytest.raises(ValueError, match="a clip of 2 frames has predictions of 1"):
        count([np.array([1, 2])], [np.array([1])], None)


def rates(errors_DN, speakers):
    ids = [f"c{i}" for i in range(len(speakers))]
    return Rates(np.array(errors_DN), np.full(len(speakers), 10), ids, speakers)


def test_an_interval_knows_of_speakers_and_of_draws():
    speakers = [f"s{i // 4}" for i in range(24)]
    same = rates([[3] * 24], speakers).figure()
    assert same == pytest.approx({"mean": 0.3, "low": 0.3, "high": 0.3})
    by_speaker = rates([[1 + i // 4 for i in range(24)]], speakers).figure()
    by_draw = rates([[2] * 24, [3] * 24, [4] * 24], speakers).figure()
    assert by_draw["mean"] == pytest.approx(0.3)
    # Three draws alone: Student's t of 2 degrees of freedom times the standard error of their mean.
    assert by_draw["high"] - 0.3 == pytest.approx(4.3027 * 0.1 / np.sqrt(3), rel=1e-3)
    assert by_speaker["low"] < by_speaker["mean"] - 0.1
    by_clip = rates([[1 + i // 4 for i in range(24)]], ["s"] * 24).figure()
    assert by_speaker["low"] < by_clip["low"] < by_clip["mean"], "of one speaker the clips are resampled"


def test_times_the_errors_is_paired():
    random, speakers = np.random.default_rng(0), [f"s{i // 4}" for i in range(24)]
    few = random.integers(1, 9, (3, 24))
    ratio = rates(few, speakers).fewer_than(rates(2 * few, speakers))
    assert ratio == pytest.approx({"mean": 2, "low": 2, "high": 2})
    unpaired = rates(few, speakers).fewer_than(rates(2 * few[:, ::-1], speakers))
    assert unpaired["low"] < 2 < unpaired["high"]
    assert rates(0 * few, speakers).fewer_than(rates(few, speakers))["high"] == np.inf


@pytest.mark.parametrize("shrinkage", [0.01, 0.5])
@pytest.mark.parametrize("more", [0, 500])
def test_discriminants_are_fishers(shrinkage, more):
    """more: features that tell nothing, with which there are more of them than frames."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    x = random.normal(size=(300, 6)) @ random.normal(size=(6, 6)) + random.normal(size=(3, 6))[labels]
    x = np.concatenate([x, random.normal(size=(300, more))], axis=1)
    scaled = (x - x.mean(0)) / x.std(0)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(scaled, labels)
    ((_, found),) = discriminants(x, labels, 5, [shrinkage])
    said = found.answers(x)
    assert (said == model.predict(scaled)).mean() > 0.99
    assert (said == labels).mean() > 0.6
    assert set(said) <= {0, 1, 2}, "a class that was never seen is never said"


def test_context_stops_at_the_ends_of_a_clip():
    assert with_context(np.array([[1], [2], [3]]), 1).tolist() == [[1, 1, 2], [1, 2, 3], [2, 3, 3]]
