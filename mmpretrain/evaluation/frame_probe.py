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

    Shrinkage s makes the covariance within classes (1 - s) times what it is, and s times its mean on the diagonal.
    """
    x = features_KF.astype(np.float32)
    mean_F, scale_F = x.mean(0), x.std(0) + 1e-6
    x = (x - mean_F) / scale_F
    count_C = np.bincount(labels_K, minlength=num_classes)
    one_KC = np.eye(num_classes, dtype=np.float32)[labels_K]
    centre_CF = one_KC.T @ x / np.maximum(count_C, 1)[:, None]
    x -= centre_CF[labels_K]
    # W = x'x / K in the space of its frames where these are fewer than the features: beyond it W is 0.
    if len(x) < x.shape[1]:
        square_K, turn_KK = np.linalg.eigh((x @ x.T).astype(np.float64) / len(x))
        kept = square_K > 1e-6 * max(float(square_K[-1]), 1e-6)  # below it float32 says nothing
        within_F = square_K[kept]
        turn_FF = x.T @ (turn_KK[:, kept] / np.sqrt(within_F * len(x)))
    else:
        within_F, turn_FF = np.linalg.eigh((x.T @ x).astype(np.float64) / len(x))
    turned_CF, level = centre_CF @ turn_FF, max(float(within_F.sum()) / x.shape[1], 1e-6)
    beyond_CF = centre_CF - turned_CF @ turn_FF.T  # of the centres, what no frame's difference from its centre reaches
    with np.errstate(divide="ignore"):
        prior_C = np.log(count_C / count_C.sum())
    for shrinkage in shrinkages:
        scaled_CF = turned_CF / ((1 - shrinkage) * np.maximum(within_F, 0) + shrinkage * level)
        scores_CF = scaled_CF @ turn_FF.T + beyond_CF / (shrinkage * level)
        kernel_FC = scores_CF.T / scale_F[:, None]
        bias_C = prior_C - 0.5 * (scores_CF * centre_CF).sum(1) - mean_F @ kernel_FC
        yield shrinkage, Discriminant(kernel_FC.astype(np.float32), bias_C.astype(np.float32))


def with_context(features_TF: np.ndarray, frames: int) -> np.ndarray:
    """Beside every frame those before and after it, [T, (2 frames + 1) F]; first and last stand for those beyond."""
    T = len(features_TF)
    at = np.clip(np.arange(T)[:, None] + np.arange(-frames, frames + 1), 0, T - 1)
    return features_TF[at].reshape(T, -1)
