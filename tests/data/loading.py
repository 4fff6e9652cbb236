"""What worker processes load in tests: small, and without JAX, so that they start soon."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np


def large(step: int) -> np.ndarray:
    return np.full((1 << 20) + step, step)  # each a little larger than the one before


def who(step: int) -> tuple[int, list[str]]:
    """The process, and what of others' it has loaded that it need not."""
    return os.getpid(), [name for name in ("jax", "tensorflow_datasets") if name in sys.modules]


class RefusedError(ValueError):
    def __init__(self, clip: str, step: int):
        super().__init__(f"clip {clip!r} of step {step} cannot be read")


def refused_at_5(step: int) -> int:
    if step == 5:
        raise ValueError("clip 'c7' cannot be read")
    return step


def unpicklable(step: int) -> int:
    raise RefusedError("c7", step)


def killed_at_3(step: int) -> int:
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step
