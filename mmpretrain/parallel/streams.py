"""Randomness by name: every device-side choice is folded from the run's seed, a stream's name and the step."""

from __future__ import annotations

import hashlib

import jax


def stream_id(name: str) -> int:
    """A 32-bit number for a stream's name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def stream_key(key: jax.Array, step: jax.Array | int, name: str) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, stream_id(name)), step)
