import numpy as np
import pytest

from mmpretrain.evaluation.probe import linear_probe

CLASSES = ("a", "b", "c")


def planted(seed: int = 0):
    """Features of 180 clips in which layer 0 is noise, layer 1 knows the label, layer 2 only of validation clips."""
    random = np.random.default_rng(seed)
    labels = np.arange(180) % 3
    train, validation, other = np.arange(90), np.arange(90, 150), np.arange(150, 180)
    noise = random.normal(size=(180, 6)).astype(np.float32)
    told = np.eye(6, dtype=np.float32)[labels]
    late = noise + 9 * told
    late[train] = noise[train] + 0.8 * told[train]
    features = np.stack([noise, noise + 3 * told, late], axis=1)
    return features, labels, np.array([f"s{i // 18}" for i in range(180)]), train, validation, other


def test_the_layer_that_knows_the_label_is_found_on_the_training_clips_alone():
    features, labels, speakers, train, validation, other = planted()
    probe = linear_probe(features, labels, speakers, train, validation, CLASSES)
    noise, knows, late = (result.ua for result in probe.results)
    assert noise < 0.5 < 0.9 < knows < late, "the best on the clips that are scored is not taken"
    assert (probe.layer, probe.chosen.ua) == (1, knows)
    assert probe.chosen.support.sum() == len(probe.predicted) == 60
    assert np.mean(probe.predicted == labels[validation]) == pytest.approx(knows)

    features[other], changed = np.nan, labels.copy()
    changed[other] = -1  # test clips are not looked at
    again = linear_probe(features, changed, speakers, train, validation, CLASSES)
    assert [result.ua for result in again.results] == [noise, knows, late]


def test_a_layer_that_knows_the_speakers_is_not_taken_for_one_that_knows_the_label():
    """Each speaker says one class; layer 0 knows who speaks, layer 1 what, less surely."""
    random, speakers = np.random.default_rng(0), np.repeat(np.arange(12), 10)
    labels = speakers % 3
    who = 5 * np.eye(12)[speakers] + random.normal(size=(120, 12))
    what = 2 * np.eye(12)[labels] + random.normal(size=(120, 12))
    features = np.stack([who, what], axis=1).astype(np.float32)
    names = np.array([f"{i:02}" for i in speakers])
    probe = linear_probe(features, labels, names, np.arange(90), np.arange(90, 120), CLASSES)
    assert probe.layer == 1
    alone = linear_probe(features, labels, np.full(120, ""), np.arange(90), np.arange(90, 120), CLASSES)
    assert alone.layer == 0, "nobody is known: clips of a speaker are on both sides"


@pytest.mark.parametrize("train", [[0, 1], [0, 1, 3]])
def test_few_clips_are_enough_to_go_on(train):
    features, labels, speakers, _, validation, _ = planted()
    assert len(linear_probe(features, labels, speakers, np.array(train), validation, CLASSES).results) == 3


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="training clips of at least two classes"):
        linear_probe(
            np.zeros((4, 1, 2), np.float32), np.zeros(4, int), np.full(4, ""), np.arange(3), np.arange(3, 4), CLASSES
        )
