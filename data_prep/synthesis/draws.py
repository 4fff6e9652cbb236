"""Named random streams: every random choice of the embedded corpus is drawn from one."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(*names: object) -> np.random.Generator:
    """A generator that depends on its names alone, so that no clip depends on which other clips were made."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def wander(rng: np.random.Generator, num_points: int, num_tracks: int, width: int) -> np.ndarray:
    """Smooth random tracks [num_points, num_tracks] of zero mean and about unit variance, correlated over `width`."""
    white = rng.standard_normal((num_points + width - 1, num_tracks))
    window = np.hanning(width + 2)[1:-1]
    window /= np.linalg.norm(window)
    return np.stack([np.convolve(track, window, "valid") for track in white.T], axis=1)
