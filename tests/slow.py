"""Which cases of a test `make test` leaves to `make test-slow`."""

from collections.abc import Iterable
from typing import Any

import pytest


def others_slow(values: Iterable[Any], *quick: Any) -> list[Any]:
    """The values as parameters of a test, a tuple as several; it is slow for all but the quick ones."""

    def slow(value: Any):
        return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)

    return [value if value in quick else slow(value) for value in values]
