"""What of the records in metrics.jsonl a repeated run must reproduce."""

from collections.abc import Mapping
from typing import Any

TIMINGS = ("time/", "throughput/", "goodput/", "memory/", "run/")


def without_timings(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without what says how, where and when it was computed."""
    return {name: value for name, value in record.items() if not name.startswith(TIMINGS)}
