"""Regression on vectors of clips: the plain baseline, the probe and the head on a frozen encoder are of it.

Logistic for classes, ridge for numbers. Dims: N clips, D numbers of a clip, K outputs of a head.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mmpretrain.config import TaskConfig


class LinearHead(NamedTuple):
    """What a regression came to: float [D], [D], [D, K] and [K]."""

    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features_ND: np.ndarray) -> np.ndarray:
        """float32 [N, K], what a head of the kind says: of classes logits, whose softmax are their probabilities."""
        return ((features_ND - self.mean) / self.scale @ self.kernel + self.bias).astype(np.float32)


@contextlib.contextmanager
def solving() -> Iterator[None]:
    """Around a regression of scikit-learn, in one thread, without the warning that L-BFGS ended ABNORMAL.

    A step of the solver is so small that several threads wait for each other most of the time, a hundred times as long
    where other work has the cores. ABNORMAL says that rounding leaves no step that lowers the loss, as on features that
    hardly differ, those of an untrained encoder: the least that can be told has been reached. That there were too few
    steps is still warned of.
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"lbfgs failed to converge[\s\S]*ABNORMAL", ConvergenceWarning)
        yield


def regression(features_ND: np.ndarray, labels_N: np.ndarray, inverse_penalty: float) -> Any:
    """Scikit-learn's, fitted, of features that are brought to mean 0 and deviation 1 first."""
    from sklearn.linear_model import LogisticRegression  # slow to import: no stage waits for it at its start
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=5000))
    with solving():
        return model.fit(features_ND, labels_N)


def fit_head(features_ND: np.ndarray, labels_N: np.ndarray, task: TaskConfig, inverse_penalty: float) -> LinearHead:
    """Fits one, whose outputs are as `TASK_METRICS` takes them. task: of a kind in `FITTED`.

    labels_N: ids of classes, from 0, of which each occurs (of levels any); or numbers.
    """
    return FITTED[task.kind](features_ND, labels_N, task, inverse_penalty)


def _classifier(features_ND: np.ndarray, labels_N: np.ndarray, task: TaskConfig, inverse_penalty: float) -> LinearHead:
    head = _logistic(features_ND, labels_N, inverse_penalty)
    if head.kernel.shape[1] == 1:  # of two classes it has the logit of the second over the first
        return head._replace(kernel=np.pad(head.kernel, ((0, 0), (1, 0))), bias=np.pad(head.bias, (1, 0)))
    return head


def _of_two(features_ND: np.ndarray, labels_N: np.ndarray, task: TaskConfig, inverse_penalty: float) -> LinearHead:
    return _logistic(features_ND, labels_N, inverse_penalty)


def _levels(features_ND: np.ndarray, labels_N: np.ndarray, task: TaskConfig, inverse_penalty: float) -> LinearHead:
    """A regression for each level but the lowest, of whether a clip is that high or higher (Frank and Hall 2001).

    A level that no clip is below, or none reaches, is passed, or not, by all with odds of N to 1.
    """
    found: LinearHead | None = None
    kernels, biases = [], []
    for level in range(1, len(task.classes)):
        above_N = labels_N >= level
        if above_N.any() and not above_N.all():
            found = _logistic(features_ND, above_N, inverse_penalty)
            kernels.append(found.kernel[:, 0])
            biases.append(found.bias[0])
        else:
            kernels.append(np.zeros(features_ND.shape[1]))
            biases.append(np.log(len(labels_N)) * (1 if above_N.all() else -1))
    return LinearHead(found.mean, found.scale, np.stack(kernels, axis=1), np.array(biases))


def _number(features_ND: np.ndarray, labels_N: np.ndarray, task: TaskConfig, inverse_penalty: float) -> LinearHead:
    """Ridge regression of the labels on the scale from -1 to 1."""
    from sklearn.linear_model import Ridge  # slow to import
    from sklearn.preprocessing import StandardScaler

    scaler, (low, high) = StandardScaler().fit(features_ND), task.range
    unit_N = (2 * np.asarray(labels_N, np.float64) - low - high) / (high - low)
    with solving():
        model = Ridge(alpha=1 / inverse_penalty).fit(scaler.transform(features_ND), unit_N)
    return LinearHead(scaler.mean_, scaler.scale_, model.coef_[:, None], np.array([model.intercept_]))


def _logistic(features_ND: np.ndarray, labels_N: np.ndarray, inverse_penalty: float) -> LinearHead:
    scaler, model = (step for _, step in regression(features_ND, labels_N, inverse_penalty).steps)
    return LinearHead(scaler.mean_, scaler.scale_, model.coef_.T, model.intercept_)


# By the kind of the labels. What a frozen encoder is asked for.
FITTED = {"class": _classifier, "binary": _of_two, "ordinal": _levels, "value": _number}
