"""How good a clip is, in numbers for the report: nothing is refused for them."""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.crops import STABLE
from data_prep.landmarker import eye_distance

SILENCE_DBFS = -120.0
FULL_SCALE = 32767
_LOOKED_AT = 25  # of a clip's crops, evenly spread


def jitter_pct(points: np.ndarray) -> float:
    """How far eyes and nose leave a straight, even motion from frame to frame: the root mean square of their second
    difference, in percent of the eye distance, for points [T, 9, 2]. 0 for fewer than three frames."""
    if len(points) < 3:
        return 0.0
    bends = np.diff(points[:, STABLE].mean(1), n=2, axis=0) / np.maximum(eye_distance(points)[1:-1, None], 1.0)
    return round(100 * float(np.sqrt(np.square(bends).sum(-1).mean())), 2)


def loudness_dbfs(audio: np.ndarray) -> float:
    """Root mean square of int16 samples, in dB of full scale."""
    power = float(np.square(audio, dtype=np.float64).mean()) if len(audio) else 0.0
    return round(max(10 * np.log10(max(power, 1e-12) / FULL_SCALE**2), SILENCE_DBFS), 1)


def clipped(audio: np.ndarray) -> int:
    """How many of the samples are at full scale."""
    return int(np.count_nonzero((audio >= FULL_SCALE) | (audio <= -FULL_SCALE)))


def measures_of_crops(mouth: np.ndarray, face: np.ndarray) -> dict[str, float]:
    """sharpness: the standard deviation of the mouth's Laplacian, in grey levels, of the median crop. black_share: of
    the pixels of the face crops, what is quite black, as beyond the edge of a picture. Of uint8 [T, S, S]; none of
    none."""
    if not len(mouth):
        return {}
    chosen = np.unique(np.linspace(0, len(mouth) - 1, _LOOKED_AT).round().astype(int))
    edges = [cv2.Laplacian(crop, cv2.CV_32F).std() for crop in mouth[chosen]]
    return {
        "sharpness": round(float(np.median(edges)), 1),
        "black_share": round(float((face[chosen] == 0).mean()), 4),
    }
