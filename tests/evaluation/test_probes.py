import re

import numpy as np
import pytest

from mmpretrain.evaluation.probes import PROBES, Features, fit_probe, get_probe

CLASSES = 3


def planted(layer=1, clips=240, longest=9):
    """Clips of several lengths whose class is in the mean over frames of one layer of three; the last is layer 2."""
    random = np.random.default_rng(0)
    labels = np.arange(clips) % CLASSES
    means = random.normal(size=(clips, 3, 8)).astype(np.float32)
    means[:, layer, :CLASSES] += 3 * np.eye(CLASSES, dtype=np.float32)[labels]
    valid = np.arange(longest) < random.integers(2, longest + 1, clips)[:, None]
    frames = means[:, 2, None] + 0.3 * random.normal(size=(clips, longest, 8))
    return Features(means, (frames * valid[..., None]).astype(np.float16), valid), labels


@pytest.mark.parametrize("name", list(PROBES))
def test_a_planted_class_is_found_without_a_look_at_the_labels_of_what_is_asked(name):
    features, labels = planted(layer=1 if PROBES[name].reads == "layers" else 2)
    train, validation, test = np.split(np.arange(240), [120, 180])
    hidden = np.where(np.arange(240) < 180, labels, -1)
    shorter = {"layers": 20}.get(PROBES[name].reads, 1)
    fitted = fit_probe(PROBES[name], features, hidden, train, validation, test, CLASSES, shorter=shorter)
    np.testing.assert_allclose(fitted.probabilities_NC.sum(1), 1, atol=1e-5)
    assert (fitted.probabilities_NC.argmax(1) == labels[test]).mean() > (0.5 if name == "probe-emobox" else 0.85)
    assert 1 <= fitted.step <= fitted.num_steps == PROBES[name].num_steps(120, shorter)


def test_padding_says_nothing():
    features, labels = planted(layer=2)
    rows = np.arange(240)
    more = Features(
        features.layers_NLD, np.pad(features.frames_NTD, ((0, 0), (0, 4), (0, 0))),
        np.pad(features.valid_NT, ((0, 0), (0, 4))),
    )  # fmt: skip
    probe = get_probe("probe-emobox")
    short, long = (fit_probe(probe, f, labels, rows, rows, rows, CLASSES, shorter=10) for f in (features, more))
    np.testing.assert_allclose(short.probabilities_NC, long.probabilities_NC, atol=1e-4)


def test_an_unknown_probe_lists_the_known_ones():
    with pytest.raises(ValueError, match=re.escape("unknown probe `superb`; known are probe-superb, probe-avsuperb")):
        get_probe("superb")
