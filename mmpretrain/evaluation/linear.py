"""Logistic regression on vectors of clips: the plain baseline, the probe and the head on a frozen encoder are of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class LinearHead(NamedTuple):
    """What a regression came to: float [D], [D], [D, C] and [C]."""

    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features_ND: np.ndarray) -> np.ndarray:
        """float32 [N, C], whose softmax are the probabilities of the classes."""
        return ((features_ND - self.mean) / self.scale @ self.kernel + self.bias).astype(np.float32)


def regression(features_ND: np.ndarray, labels_N: np.ndarray, inverse_penalty: float) -> Any:
    """Scikit-learn's, fitted, of features that are brought to mean 0 and deviation 1 first.

    In one thread: a step of the solver is so small that several wait for each other most of the time, a hundred times
    as long where other work has the cores.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import: no stage waits for it at its start
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=5000))
    with threadpool_limits(limits=1):
        return model.fit(features_ND, labels_N)


def fit_head(features_ND: np.ndarray, labels_N: np.ndarray, inverse_penalty: float) -> LinearHead:
    """Fits one. labels_N: ids of classes, from 0, of which each occurs."""
    scaler, model = (step for _, step in regression(features_ND, labels_N, inverse_penalty).steps)
    kernel_DC, bias_C = model.coef_.T, model.intercept_
    if kernel_DC.shape[1] == 1:  # of two classes it has the logit of the second over the first
        kernel_DC, bias_C = np.pad(kernel_DC, ((0, 0), (1, 0))), np.pad(bias_C, (1, 0))
    return LinearHead(scaler.mean_, scaler.scale_, kernel_DC, bias_C)
