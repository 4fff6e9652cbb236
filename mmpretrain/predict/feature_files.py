"""Features in files that others read: safetensors, npy or HDF5, each whole or not there."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpretrain.files import whole_file

FORMATS = ("safetensors", "npy", "hdf5")


def check_format(name: str) -> None:
    """Raises ValueError where its package is not installed."""
    if name == "hdf5" and importlib.util.find_spec("h5py") is None:
        raise ValueError("--format=hdf5 needs h5py, which is not installed; `pip install 'mmpretrain-jax[hdf5]'`")


def write_features(path: Path, clip_ids: Sequence[str], features: Sequence[np.ndarray], kind: str) -> None:
    """features: of each clip [rows, ...]. In safetensors an array by clip id; else all rows, one clip after the other.

    In HDF5 that is `features`, beside `clip_ids` and `rows`, the number of each.
    """
    with whole_file(path) as draft:
        if kind == "safetensors":
            from safetensors.numpy import save_file

            save_file({name: np.ascontiguousarray(x) for name, x in zip(clip_ids, features, strict=True)}, draft)
        elif kind == "npy":
            with open(draft, "wb") as file:  # given a name, NumPy would add .npy to it
                np.save(file, np.concatenate(features))
        else:
            import h5py  # whose own lock would meet that of the draft

            with h5py.File(draft, "w", locking=False) as file:
                file["features"] = np.concatenate(features)
                file["rows"] = np.array([len(x) for x in features])
                file.create_dataset("clip_ids", data=list(clip_ids), dtype=h5py.string_dtype())
