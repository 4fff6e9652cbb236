"""Whether a classifier is as sure as it is right: reliability diagrams and the expected calibration error.

Dims: N clips, C classes, K bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

NUM_BINS = 10


def reliability(probabilities_NC: np.ndarray, labels_N: np.ndarray) -> dict[str, Any]:
    """Ready for JSON: {"bins": [{"low", "high", "clips", "confidence", "accuracy"}], "ece", "brier"}.

    Clips are dealt into ten bins of equal width by how likely the likeliest class is said to be; bins without a clip
    are left out. ece: the mean over clips of how far confidence and accuracy of their bin are apart (Naeini et al.
    2015); brier: the mean over clips of the squared distance of the probabilities from the truth (0 to 2).
    """
    confidence_N, right_N = probabilities_NC.max(1), probabilities_NC.argmax(1) == labels_N
    bin_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    bins, ece = [], 0.0
    for k in np.unique(bin_N).tolist():
        own = bin_N == k
        confidence, accuracy = float(confidence_N[own].mean()), float(right_N[own].mean())
        bins.append(
            {
                "low": k / NUM_BINS, "high": (k + 1) / NUM_BINS, "clips": int(own.sum()), "confidence": confidence,
                "accuracy": accuracy,
            }
        )  # fmt: skip
        ece += own.mean() * abs(confidence - accuracy)
    truth_NC = np.eye(probabilities_NC.shape[1])[labels_N]
    return {"bins": bins, "ece": float(ece), "brier": float(np.square(probabilities_NC - truth_NC).sum(1).mean())}
