import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from mmpretrain.config import REGRESSED, TaskConfig
from mmpretrain.evaluation.linear import FITTED, fit_head, regression, solving
from mmpretrain.evaluation.tasks import TASK_METRICS


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_head_says_what_the_regression_says(num_classes):
    random = np.random.default_rng(num_classes)
    labels = np.arange(60) % num_classes
    features = (5 + 3 * random.normal(size=(60, 4)) + np.eye(4)[labels]).astype(np.float32)
    logits = fit_head(features, labels, TaskConfig("mood", classes=("a", "b", "c")[:num_classes]), 0.1).logits(features)
    assert logits.shape == (60, num_classes)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, regression(features, labels, 0.1).predict_proba(features), rtol=1e-4, atol=1e-6)


def test_an_end_by_rounding_is_no_warning_and_too_few_steps_are_one():
    ended = "lbfgs failed to converge after {} iteration(s) (status={}):\n{}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with solving():
            warnings.warn(ended.format(13, 2, "ABNORMAL: "), ConvergenceWarning, stacklevel=1)
    with pytest.warns(ConvergenceWarning, match="REACHED LIMIT"), solving():
        warnings.warn(ended.format(5000, 1, "REACHED LIMIT"), ConvergenceWarning, stacklevel=1)


def test_numbers_and_levels_are_learned_as_their_metrics_take_them():
    assert set(FITTED) == set(REGRESSED)
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 6)).astype(np.float32)
    height = 3 + features @ np.array([1, -1, 0.5, 0, 0, 0])
    number = TaskConfig("height", kind="value", range=(-4.0, 10.0))
    said = fit_head(features, height, number, 1.0).logits(features)
    assert TASK_METRICS["value"].of(height, said, number)["ccc"] > 0.99
    levels = TaskConfig("level", kind="ordinal", classes=("0", "1", "2", "3"))
    labels = np.digitize(height, (2, 4)) + np.digitize(height, (4,))  # nobody is of level 2
    labels = np.minimum(labels, 3)
    odds = fit_head(features, labels, levels, 1.0).logits(features)
    assert odds.shape == (200, 3)
    assert TASK_METRICS["ordinal"].of(labels, odds, levels)["qwk"] > 0.9
    top = fit_head(features, np.minimum(labels, 1), levels, 1.0).logits(features)[:, 1:]
    np.testing.assert_allclose(top, -np.log(200), rtol=1e-5, err_msg="levels that none reaches")
    two = TaskConfig("high", kind="binary", classes=("no", "yes"))
    logit = fit_head(features, (height > 3).astype(int), two, 1.0).logits(features)
    assert TASK_METRICS["binary"].of((height > 3).astype(int), logit, two)["auc"] > 0.99
