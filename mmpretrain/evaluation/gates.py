"""How much a gated head takes of each stream, by the class of the clips. Dims: N clips, M streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def gates_by_class(
    gate_NM: np.ndarray, classes_N: np.ndarray, streams: Sequence[str], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """By class, and of `all`, the number of clips and by stream the mean of its gates.

    gate_NM: 0 where a clip lacks a stream. Of clips with two streams or more: of others the gate decides nothing.
    classes_N: int, -1 for none. A class without such clips is left out.
    """
    decides_N = (gate_NM > 0).sum(1) > 1
    of_classes = {"all": decides_N} | {name: decides_N & (classes_N == c) for c, name in enumerate(classes)}
    return {
        name: {"clips": int(these_N.sum()), **dict(zip(streams, map(float, gate_NM[these_N].mean(0)), strict=True))}
        for name, these_N in of_classes.items()
        if these_N.any()
    }
