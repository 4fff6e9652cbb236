import numpy as np
import pytest

from mmpretrain.evaluation.linear import fit_head, regression


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_head_says_what_the_regression_says(num_classes):
    random = np.random.default_rng(num_classes)
    labels = np.arange(60) % num_classes
    features = (5 + 3 * random.normal(size=(60, 4)) + np.eye(4)[labels]).astype(np.float32)
    logits = fit_head(features, labels, 0.1).logits(features)
    assert logits.shape == (60, num_classes)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, regression(features, labels, 0.1).predict_proba(features), rtol=1e-4, atol=1e-6)
