"""Randomness by name: whatever is drawn is a pure function of the run's seed and of what it is drawn for.

This is the one place where keys and generators are made. A run's seed has a seed for each of its parts, such as a stage
(`part_seed`); on the device that seed has a key (`seed_key`), from which those of steps, layers and clips are made by
name and by number (`named`, `numbered`); data workers draw from generators made of the seed and any names. Nothing is
told apart by sums or by constants, which meet by chance, and no global generator is read.
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # data workers use this file too, and do without JAX
    import jax

Key = TypeVar("Key", bound="jax.Array | None")


def part_seed(seed: int, *names: int | str) -> int:
    """The seed of a part of a run, such as a stage: a whole number of 63 bits that no other part shares."""
    return _hash(seed, *names) >> 65


def seed_key(seed: int) -> jax.Array:
    """The key of a seed, which may have any number of digits."""
    import jax

    key, digest = jax.random.key(0), _hash("key", seed)
    for shift in (0, 32, 64, 96):
        key = jax.random.fold_in(key, np.uint32(digest >> shift & 0xFFFFFFFF))
    return key


def named(key: Key, name: str) -> Key:
    """The key of the stream `name` below `key`, or below each of an array of keys.

    None, which stands for no randomness, stays None.
    """
    return numbered(key, np.uint32(stream_id(name)))


def numbered(key: Key, number: jax.Array | int) -> Key:
    """As `named`, for one of many alike: a step, a layer, a part."""
    import jax

    if key is None:
        return None
    fold = jax.random.fold_in
    for _ in key.shape:
        fold = jax.vmap(fold, in_axes=(0, None))
    return fold(key, number)


def stream_key(key: jax.Array, step: jax.Array | int, name: str) -> jax.Array:
    """The key of the stream `name` at a step."""
    return numbered(named(key, name), step)


def keys_of(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """[B]: `numbered` for each of B numbers, such as `Batch.chance_B`."""
    import jax

    return jax.vmap(functools.partial(numbered, key))(numbers)


def stream_id(name: str) -> int:
    """A 32-bit number for a stream's name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def generator(seed: int, *names: int | str) -> np.random.Generator:
    """The random stream that belongs to `seed` and `names`; other names or another seed give an independent one."""
    return np.random.Generator(np.random.Philox(key=_hash(seed, *names)))


def clip_generator(seed: int, stream: str, epoch: int, clip_id: str, occurrence: int) -> np.random.Generator:
    """What is drawn for one clip in one epoch, whichever worker, batch or process it falls to.

    occurrence: how often the clip came before in this epoch.
    """
    return generator(seed, stream, epoch, clip_id, occurrence)


def clip_number(clip_id: str, occurrence: int) -> int:
    """A 32-bit number that what is drawn for a clip on the device is told apart by."""
    return _hash("clip", clip_id, occurrence) >> 96


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
