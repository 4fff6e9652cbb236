import numpy as np
import pytest

from mmpretrain.evaluation.probe import linear_probe

CLASSES = ("a", "b", "c")


def test_a_layer_that_tells_the_classes_apart_scores_and_noise_does_not():
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    noise = random.normal(size=(120, 6)).astype(np.float32)
    telling = noise + 4 * np.eye(6, dtype=np.float32)[labels]
    features = np.stack([noise, telling], axis=1)
    train, validation, other = np.arange(60), np.arange(60, 90), np.arange(90, 120)
    of_noise, of_telling = linear_probe(features, labels, train, validation, CLASSES)
    assert of_telling.ua > 0.95
    assert of_noise.ua < 0.6
    assert of_telling.support.sum() == 30

    features[other], changed = np.nan, labels.copy()
    changed[other] = -1  # test clips are not looked at
    again = linear_probe(features, changed, train, validation, CLASSES)
    assert [result.ua for result in again] == [of_noise.ua, of_telling.ua]


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="training clips of at least two classes"):
        linear_probe(np.zeros((4, 1, 2), np.float32), np.zeros(4, int), np.arange(3), np.arange(3, 4), CLASSES)
