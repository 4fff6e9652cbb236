"""Named random streams for data workers: every draw is a pure function of the run's seed and what it is for."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def generator(seed: int, *names: int | str) -> np.random.Generator:
    """The random stream that belongs to `seed` and `names`; other names or another seed give an independent one."""
    return np.random.Generator(np.random.Philox(key=_hash(seed, *names)))


def clip_generator(seed: int, stream: str, epoch: int, clip_id: str) -> np.random.Generator:
    """What is drawn for one clip in one epoch, whichever worker, batch or process it falls to."""
    return generator(seed, stream, epoch, clip_id)


def unit_hash(*names: int | str) -> float:
    """A fixed number in [0, 1) for these names, as if drawn uniformly: e.g. whether a clip is held out."""
    return (_hash(*names) >> 75) / 2**53


def _hash(*names: int | str) -> int:
    # JSON keeps 1 and "1" apart, and ("ab", "c") from ("a", "bc").
    return int.from_bytes(hashlib.blake2b(json.dumps(names).encode(), digest_size=16).digest(), "little")
