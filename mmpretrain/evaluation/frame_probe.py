"""Linear discriminants on features of frames: the frozen probe of an encoder's layers, and plain baselines beside it.

The discriminant is Fisher's with a shrunken covariance (Friedman 1989): linear, of a closed form, and of few labelled
frames as good as any that was tried. How much it is shrunken is for validation clips to choose.

Dims: K frames, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 0.7)


class Discriminant(NamedTuple):
    """kernel_FC, bias_C: of the scores, whose largest is the answer. A class without a frame has the score -inf."""

    kernel_FC: np.ndarray
    bias_C: np.ndarray

    def answers(self, features_KF: np.ndarray) -> np.ndarray:
        """int [K]."""
        return (features_KF @ self.kernel_FC + self.bias_C).argmax(-1)


def discriminants(
    features_KF: np.ndarray, labels_K: np.ndarray, num_classes: int, shrinkages: Sequence[float] = SHRINKAGES
) -> Iterator[tuple[float, Discriminant]]:
    """Every shrinkage with its own. labels_K: ids of classes, all known. Features are scaled to deviation 1 first.

    Shrinkage s makes the covariance within classes W (1 - s) W + s w, where w is the mean of W's diagonal.
    """
    from scipy.linalg import cho_factor, cho_solve

    x = features_KF.astype(np.float32)
    mean_F, scale_F = x.mean(0), x.std(0) + 1e-6
    x = (x - mean_F) / scale_F
    count_C = np.bincount(labels_K, minlength=num_classes)
    one_KC = np.eye(num_classes, dtype=np.float32)[labels_K]
    centre_CF = one_KC.T @ x / np.maximum(count_C, 1)[:, None]
    x -= centre_CF[labels_K]
    centre_FC = centre_CF.T.astype(np.float64)
    # Where frames are fewer than features, in the space of the frames (Woodbury's identity).
    if few := len(x) < x.shape[1]:
        x = x.astype(np.float64)
        square, right = x @ x.T / len(x), x @ centre_FC
    else:
        square, right = (x.T @ x).astype(np.float64) / len(x), centre_FC
    level = max(float(square.trace()) / x.shape[1], 1e-6)
    with np.errstate(divide="ignore"):
        prior_C = np.log(count_C / count_C.sum())
    for shrinkage in shrinkages:
        shrunken = (1 - shrinkage) * square
        shrunken[np.diag_indices_from(shrunken)] += shrinkage * level
        scores_FC = cho_solve(cho_factor(shrunken, overwrite_a=True, check_finite=False), right, check_finite=False)
        if few:
            scores_FC = (centre_FC - (1 - shrinkage) / len(x) * x.T @ scores_FC) / (shrinkage * level)
        kernel_FC = scores_FC / scale_F[:, None]
        bias_C = prior_C - 0.5 * (scores_FC * centre_FC).sum(0) - mean_F @ kernel_FC
        yield shrinkage, Discriminant(kernel_FC.astype(np.float32), bias_C.astype(np.float32))


def with_context(features_TF: np.ndarray, frames: int) -> np.ndarray:
    """Beside every frame those before and after it, [T, (2 frames + 1) F]; first and last stand for those beyond."""
    T = len(features_TF)
    at = np.clip(np.arange(T)[:, None] + np.arange(-frames, frames + 1), 0, T - 1)
    return features_TF[at].reshape(T, -1)
