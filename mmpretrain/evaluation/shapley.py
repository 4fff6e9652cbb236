"""What each modality brings: Shapley's shares of a figure that is known for every set of modalities."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence


def shapley(value_of: Mapping[frozenset[str], float], names: Sequence[str]) -> dict[str, float]:
    """By name its share: the mean over all orders of what the figure grows by when it joins those before it.

    value_of: the figure of every set of names, the empty one too. The shares add up to that of all less that of none
    (Shapley 1953).
    """
    shares = dict.fromkeys(names, 0.0)
    for order in itertools.permutations(names):
        for i, name in enumerate(order):
            before = frozenset(order[:i])
            shares[name] += (value_of[before | {name}] - value_of[before]) / math.factorial(len(names))
    return shares
