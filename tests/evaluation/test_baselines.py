import numpy as np
import pytest

from mmpretrain.evaluation.baselines import (
    NUM_PICTURE_STATISTICS,
    NUM_SOUND_STATISTICS,
    baseline_answers,
    picture_statistics,
    sound_statistics,
    text_answers,
)
from mmpretrain.evaluation.metrics import classification_metrics
from mmpretrain.evaluation.protocols import Fold

CLASSES = ("angry", "calm", "sad")


def tone(pitch_hz, num_samples=8000):
    return (8000 * np.sin(2 * np.pi * pitch_hz * np.arange(num_samples) / 16_000)).astype(np.int16)


def fold_of(num_rows):
    third = num_rows // 3
    return Fold(*(np.arange(i * third, (i + 1) * third) for i in range(3)))


def ua(features, labels, fold):
    return classification_metrics(labels[fold.test], baseline_answers(features, labels, fold, CLASSES), CLASSES).ua


def test_statistics_have_one_size_whatever_the_length():
    for num_samples in (400, 8000, 16_001):
        statistics = sound_statistics(tone(300, num_samples))
        assert statistics.shape == (NUM_SOUND_STATISTICS,)
        assert statistics.dtype == np.float32
    assert not np.array_equal(sound_statistics(tone(300)), sound_statistics(tone(900)))


def test_a_clip_without_sound_has_zeros():
    for num_samples in (0, 399):
        np.testing.assert_array_equal(sound_statistics(tone(300, num_samples)), np.zeros(156, np.float32))


def test_silence_around_the_sound_does_not_count():
    heard = np.random.default_rng(7).normal(0, 2000, 16_000).astype(np.int16)
    silence = np.zeros(16_000, np.int16)
    alone, within = (sound_statistics(sound)[:13] for sound in (heard, np.concatenate([silence, heard, silence])))
    np.testing.assert_allclose(within, alone, atol=0.5)  # mean cepstra, of which the first is -76 in silence
    assert np.isfinite(sound_statistics(silence)).all()


def test_baseline_hears_a_difference_and_finds_none_in_noise():
    random = np.random.default_rng(7)
    labels = np.arange(90) % 3
    heard = np.stack([sound_statistics(tone(200 + 400 * label + random.integers(100))) for label in labels])
    assert ua(heard, labels, fold_of(90)) > 0.9
    noise = random.normal(size=(900, 20)).astype(np.float32)
    assert ua(noise, np.arange(900) % 3, fold_of(900)) == pytest.approx(1 / 3, abs=0.1)


def test_test_rows_have_no_say_in_training():
    random = np.random.default_rng(7)
    features, labels = random.normal(size=(90, 10)).astype(np.float32), random.integers(0, 3, 90)
    first = baseline_answers(features, labels, fold_of(90), CLASSES)
    changed = labels.copy()
    changed[60:] = (labels[60:] + 1) % 3
    second = baseline_answers(features, changed, fold_of(90), CLASSES)
    np.testing.assert_array_equal(first, second)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="only the class `calm`"):
        baseline_answers(np.zeros((9, 4), np.float32), np.ones(9, int), fold_of(9), CLASSES)


def test_picture_statistics_are_means_and_deviations_of_sixteen_by_sixteen_cells():
    random = np.random.default_rng(5)
    video = random.integers(0, 256, (7, 48, 64), np.uint8)
    cells = video.reshape(7, 16, 3, 16, 4).mean((2, 4)).reshape(7, 256) / 255
    changes = np.abs(cells[1:] - cells[:-1])
    expected = np.concatenate([cells.mean(0), cells.std(0), changes.mean(0), changes.std(0)])
    found = picture_statistics(video)
    assert found.shape == (NUM_PICTURE_STATISTICS,)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for size in (8, 16, 30, 88):  # whatever the crops are
        even = picture_statistics(np.full((1, size, size), 51, np.uint8))
        np.testing.assert_allclose(even, [0.2] * 256 + [0] * 768, atol=1e-6)


def test_clips_without_a_picture_are_not_trained_on_and_answered_alike():
    random = np.random.default_rng(6)
    labels = np.arange(90) % 3
    features = (random.normal(size=(90, 4)) + 3 * np.eye(3, 4)[labels]).astype(np.float32)
    without = features.copy()
    without[::4] = np.nan
    fold = fold_of(90)
    said = baseline_answers(without, labels, fold, CLASSES)
    blind = np.isnan(without[fold.test, 0])
    assert len(set(said[blind].tolist())) == 1
    assert (said == labels[fold.test])[~blind].mean() > 0.8
    known = Fold(fold.train[~np.isnan(without[fold.train, 0])], fold.validation, fold.test[~blind])
    np.testing.assert_array_equal(baseline_answers(without, labels, known, CLASSES), said[~blind])
    without[fold.train] = np.nan
    with pytest.raises(ValueError, match="only the class `none`"):
        baseline_answers(without, labels, fold, CLASSES)


def test_words_are_heard_and_those_of_other_parts_are_not_learned():
    said = ("stop it now", "good night then", "i miss you")
    labels = np.arange(90) % 3
    texts = [f"{said[label]} {'please' * (i % 2)}" for i, label in enumerate(labels)]
    fold = fold_of(90)
    np.testing.assert_array_equal(text_answers(texts, labels, fold, CLASSES), labels[fold.test])
    without = [text if i % 5 else " " for i, text in enumerate(texts)]
    answers = text_answers(without, labels, fold, CLASSES)
    spoken = fold.test % 5 > 0
    np.testing.assert_array_equal(answers[spoken], labels[fold.test][spoken])
    assert len(set(answers[~spoken].tolist())) == 1
    changed = [text if i < 60 else f"{text} {i}" for i, text in enumerate(texts)]
    np.testing.assert_array_equal(text_answers(changed, labels, fold, CLASSES), labels[fold.test])
    with pytest.raises(ValueError, match="only the class `none`"):
        text_answers([""] * 90, labels, fold, CLASSES)
