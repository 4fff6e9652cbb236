"""Randomness by name: whatever is drawn is a pure function of the run's seed and of what it is drawn for.

On the device a key is folded from the run's key, a stream's name and the step; data workers draw from generators made
of the seed and any names. No global generator is read.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # data workers use this file too, and do without JAX
    import jax


def stream_key(key: jax.Array, step: jax.Array | int, name: str) -> jax.Array:
    """The key of the stream `name` at a step."""
    import jax

    return jax.random.fold_in(jax.random.fold_in(key, stream_id(name)), step)


def stream_id(name: str) -> int:
    """A 32-bit number for a stream's name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def generator(seed: int, *names: int | str) -> np.random.Generator:
    """The random stream that belongs to `seed` and `names`; other names or another seed give an independent one."""
    return np.random.Generator(np.random.Philox(key=_hash(seed, *names)))


def clip_generator(seed: int, stream: str, epoch: int, clip_id: str) -> np.random.Generator:
    """What is drawn for one clip in one epoch, whichever worker, batch or process it falls to."""
    return generator(seed, stream, epoch, clip_id)


def unit_hash(*names: int | str) -> float:
    """A fixed number in [0, 1) for these names, as if drawn uniformly."""
    return (hash64(*names) >> 11) / 2**53


def hash64(*names: int | str) -> int:
    """A fixed number of 64 bits for these names."""
    return _hash(*names) >> 64


def unit_of(hashes_N: np.ndarray) -> np.ndarray:
    """float64 [N] in [0, 1) of uint64 [N]: `unit_hash` of the names that have these `hash64`."""
    return (hashes_N >> np.uint64(11)) / 2**53


def mixed(hashes_N: np.ndarray, *names: int | str) -> np.ndarray:
    """uint64 [N]: other hashes, a fixed one for every hash and these names, as if drawn anew for each of them."""
    z = hashes_N ^ np.uint64(hash64(*names))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finalizer of SplitMix64
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


def _hash(*names: int | str) -> int:
    # JSON keeps 1 and "1" apart, and ("ab", "c") from ("a", "bc").
    return int.from_bytes(hashlib.blake2b(json.dumps(names).encode(), digest_size=16).digest(), "little")
