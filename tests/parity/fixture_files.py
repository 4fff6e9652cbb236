"""Finds the stored reference numbers: the folder MMPRETRAIN_PARITY_DIR, else `shared/parity` beside the checkout."""

import json
import os
from pathlib import Path

import numpy as np
import pytest


def load_arrays(name: str) -> tuple[dict[str, np.ndarray], dict | list]:
    """The arrays of one `.npz` file and its `meta_json`. Skips the calling test, or module, where it is absent."""
    default = Path(__file__).parents[2].parent / "shared" / "parity"
    path = Path(os.environ.get("MMPRETRAIN_PARITY_DIR", default)) / name
    if not path.exists():
        pytest.skip(f"no reference numbers at {path}; set MMPRETRAIN_PARITY_DIR", allow_module_level=True)
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("meta_json")))


def groups(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, dict[str, np.ndarray]]:
    """Arrays called `{prefix}{number}/{name}`, as name -> array per group."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        group, _, name = key.partition("/")
        if name and group.startswith(prefix) and group[len(prefix) :].isdigit():
            found.setdefault(group, {})[name] = array
    return found
