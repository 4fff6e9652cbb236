"""Whether every path that a user gives is of a file system: object stores by address are no place for a run."""

from __future__ import annotations

from mmpretrain.config import RunConfig, as_dict, flatten
from mmpretrain.files import check_local


def check_paths(config: RunConfig) -> None:
    """Raises ValueError, with the remedy, for a field that holds an address such as gs://bucket/run."""
    for field, value in flatten(as_dict(config), "--config").items():
        if isinstance(value, str):
            check_local(field, value)
