"""The largest error of every compared quantity, for the table that ends a test run (printed by `conftest.py`)."""

import math

_worst: dict[str, tuple[float, float, int]] = {}  # quantity: (error, limit, number of comparisons)


def record(quantity: str, error: float, limit: float) -> None:
    """Notes one comparison. Of a quantity that is compared often, the table keeps the error nearest to its limit.

    error and limit are in the same unit and not negative; a limit of 0 says that the quantity must be exact. An error
    that is no number is the worst of all.
    """
    error, limit = float(error), float(limit)
    worst_error, worst_limit, count = _worst.get(quantity, (-1.0, 1.0, 0))
    if _badness(error, limit) > _badness(worst_error, worst_limit):
        worst_error, worst_limit = error, limit
    _worst[quantity] = worst_error, worst_limit, count + 1


def table() -> list[str]:
    """Lines of text, one a quantity in the order of their first comparison; none where nothing was compared."""
    if not _worst:
        return []
    width = max(map(len, _worst))
    lines = [f"{'quantity':{width}}  worst error    limit  compared"]
    for quantity, (error, limit, count) in _worst.items():
        bound = "exact" if limit == 0 else f"{limit:.1e}"
        lines.append(f"{quantity:{width}}  {error:11.1e}  {bound:>7}  {count:8}")
    return lines


def _badness(error: float, limit: float) -> float:
    if math.isnan(error):
        return math.inf
    if limit == 0:
        return error * 1e30
    return error / limit
