"""Paths that a user gives: of a file system, as object stores by address are no place for a run; and folders made."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.config import RunConfig, as_dict, flatten, shown
from mmpretrain.files import check_local


def check_paths(config: RunConfig) -> None:
    """Raises ValueError, with the remedy, for a field that holds an address such as gs://bucket/run."""
    for field, value in flatten(as_dict(config), "--config").items():
        if isinstance(value, str):
            check_local(field, value)


def make_folder(path: Path, field: str) -> None:
    """Makes a folder to write into, where it is not there. Raises ValueError naming the field where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise ValueError(f"{field}={shown(str(path))} cannot be made ({reason}); give another folder") from error
