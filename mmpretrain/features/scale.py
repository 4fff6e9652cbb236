"""Features on the scale of their own clip, which takes off speaker, room and microphone."""

from __future__ import annotations

import numpy as np

LEAST_DEVIATION = 1e-3  # below which a feature counts as constant


def standardized(x_NF: np.ndarray) -> np.ndarray:
    """Each feature less its mean over the rows, over its deviation; a constant one is 0. float32 [N, F]."""
    if not len(x_NF):
        return x_NF
    centred = x_NF - x_NF.mean(axis=0, dtype=np.float64)  # in which the mean of equal values is exactly that value
    return (centred / np.sqrt(np.square(centred).mean(axis=0) + LEAST_DEVIATION**2)).astype(np.float32)
