"""The folder of a manifest: the clips that an embedding found expressive, and what that embedding had seen."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mmpretrain.files import check_seal

MANIFEST_FILE, SEEN_FILE = "manifest.csv", "training_data.npz"
REMEDY = "make it again with `mmpretrain retrieve`"


def chosen_contents(folder: str | Path) -> np.ndarray:
    """uint64, ascending: what is in the clips of a manifest. Raises FileNotFoundError or ValueError."""
    file = Path(folder) / MANIFEST_FILE
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; give the folder of a manifest that `mmpretrain retrieve` left")
    check_seal(folder, MANIFEST_FILE, remedy=REMEDY)
    with open(file, encoding="utf-8", newline="") as lines:
        found = list(csv.DictReader(lines))
    try:
        return np.unique(np.array([int(row["content"], 16) for row in found], np.uint64))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no manifest ({error}); {REMEDY}") from error
