import numpy as np
import pytest

from mmpretrain.evaluation.baselines import NUM_STATISTICS, clip_statistics, mfcc_baseline
from mmpretrain.evaluation.protocols import Fold

CLASSES = ("angry", "calm", "sad")


def tone(pitch_hz, num_samples=8000):
    return (8000 * np.sin(2 * np.pi * pitch_hz * np.arange(num_samples) / 16_000)).astype(np.int16)


def fold_of(num_rows):
    third = num_rows // 3
    return Fold(*(np.arange(i * third, (i + 1) * third) for i in range(3)))


def test_statistics_have_one_size_whatever_the_length():
    for num_samples in (400, 8000, 16_001):
        statistics = clip_statistics(tone(300, num_samples))
        assert statistics.shape == (NUM_STATISTICS,)
        assert statistics.dtype == np.float32
    assert not np.array_equal(clip_statistics(tone(300)), clip_statistics(tone(900)))


def test_a_clip_without_sound_has_zeros():
    for num_samples in (0, 399):
        np.testing.assert_array_equal(clip_statistics(tone(300, num_samples)), np.zeros(156, np.float32))


def test_digital_silence_is_finite():
    assert np.isfinite(clip_statistics(np.zeros(8000, np.int16))).all()


def test_baseline_hears_a_difference_and_finds_none_in_noise():
    random = np.random.default_rng(7)
    labels = np.arange(90) % 3
    heard = np.stack([clip_statistics(tone(200 + 400 * label + random.integers(100))) for label in labels])
    assert mfcc_baseline(heard, labels, fold_of(90), CLASSES).ua > 0.9
    noise = random.normal(size=(900, 20)).astype(np.float32)
    assert mfcc_baseline(noise, np.arange(900) % 3, fold_of(900), CLASSES).ua == pytest.approx(1 / 3, abs=0.1)


def test_test_rows_have_no_say_in_training():
    random = np.random.default_rng(7)
    features, labels = random.normal(size=(90, 10)).astype(np.float32), random.integers(0, 3, 90)
    first = mfcc_baseline(features, labels, fold_of(90), CLASSES)
    changed = labels.copy()
    changed[60:] = (labels[60:] + 1) % 3
    second = mfcc_baseline(features, changed, fold_of(90), CLASSES)
    np.testing.assert_array_equal(first.confusion.sum(0), second.confusion.sum(0))  # the same answers


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="only the class `calm`"):
        mfcc_baseline(np.zeros((9, 4), np.float32), np.ones(9, int), fold_of(9), CLASSES)
