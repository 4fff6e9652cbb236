"""Finds the stored reference numbers: the folder MMPRETRAIN_PARITY_DIR, else `shared/parity` beside the checkout."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.parity import errors


def folder() -> Path:
    default = Path(__file__).parents[2].parent / "shared" / "parity"
    return Path(os.environ.get("MMPRETRAIN_PARITY_DIR", default))


def file_names(*patterns: str) -> list[str]:
    """The files whose names match a pattern, sorted; none where the folder is absent, so that the tests are skipped."""
    return sorted({path.name for pattern in patterns for path in folder().glob(pattern)})


def load_arrays(name: str) -> tuple[dict[str, np.ndarray], dict | list]:
    """The arrays of one `.npz` file and its `meta_json`. Skips the calling test, or module, where it is absent."""
    with np.load(_existing(name), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("meta_json", "{}")))


def load_json(name: str) -> dict:
    """One `.json` file. Skips the calling test, or module, where it is absent."""
    return json.loads(_existing(name).read_text())


def _existing(name: str) -> Path:
    path = folder() / name
    if not path.exists():
        pytest.skip(f"no reference numbers at {path}; set MMPRETRAIN_PARITY_DIR", allow_module_level=True)
    return path


def groups(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, dict[str, np.ndarray]]:
    """Arrays called `{prefix}{number}/{name}`, as name -> array per group."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        group, _, name = key.partition("/")
        if name and group.startswith(prefix) and group[len(prefix) :].isdigit():
            found.setdefault(group, {})[name] = array
    return found


def check(quantity: str, ours, reference, *, relative: float = 1e-4) -> None:
    """Records the largest difference and asserts that it is at most `relative` of max(1, largest reference value)."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape, f"{quantity}: our shape {ours.shape}, the reference's {reference.shape}"
    limit = relative * max(1.0, np.abs(reference).max(initial=0))
    check_error(quantity, np.abs(ours - reference).max(initial=0), limit)


def check_error(quantity: str, error: float, limit: float) -> None:
    """Records an error, in the unit of its limit (0: exact), and asserts that it is no larger than that."""
    errors.record(quantity, error, limit)
    assert error <= limit, f"{quantity}: differs by {error:.3e}, more than {limit:.3e}"
