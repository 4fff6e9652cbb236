import numpy as np
import pytest

from mmpretrain.evaluation.calibration import reliability


def test_one_who_is_as_sure_as_right_has_no_error_and_one_who_is_too_sure_has_the_difference():
    probabilities = np.array([[0.75, 0.25]] * 8 + [[0.05, 0.95]] * 4 + [[1.0, 0.0]] * 2)
    labels = np.array([0] * 6 + [1] * 2 + [1, 1, 0, 0] + [0] * 2)
    found = reliability(probabilities, labels)
    assert [(one["low"], one["clips"]) for one in found["bins"]] == [(0.7, 8), (0.9, 6)]
    assert found["bins"][0]["confidence"] == found["bins"][0]["accuracy"] == 0.75
    assert found["bins"][1]["accuracy"] == pytest.approx(4 / 6)
    assert found["ece"] == pytest.approx(6 / 14 * (5.8 / 6 - 4 / 6))
    brier = (6 * 2 * 0.25**2 + 2 * 2 * 0.75**2 + 2 * 2 * 0.05**2 + 2 * 2 * 0.95**2) / 14
    assert found["brier"] == pytest.approx(brier)
