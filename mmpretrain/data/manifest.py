"""The folder of a manifest: the clips that an embedding found expressive, and what that embedding had seen."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mmpretrain.files import check_seal

MANIFEST_FILE, SEEN_FILE = "manifest.csv", "training_data.npz"
HEARD = "nearest_"  # before the name of the label column, in the file
REMEDY = "make it again with `mmpretrain retrieve`"


def chosen_contents(folder: str | Path) -> np.ndarray:
    """uint64, ascending: what is in the clips of a manifest. Raises FileNotFoundError or ValueError."""
    return np.unique(np.array([content for content, _ in _rows(folder)], np.uint64))


def heard_words(folder: str | Path, column: str) -> dict[int, str]:
    """By what is in a clip of a manifest, the word of a label column that its embedding hears in it.

    Raises what `chosen_contents` raises, and ValueError if it was made with another label.
    """
    rows, name = _rows(folder), heard_column(column)
    if missing := next((row for _, row in rows if name not in row), None):
        heard = [name.removeprefix(HEARD) for name in missing if name.startswith(HEARD)]
        raise ValueError(
            f"{Path(folder) / MANIFEST_FILE} says nothing of the label {column!r} of its clips, but of "
            f"{' and '.join(heard) or 'none'}; retrieve with an embedding of {column}, or learn another column"
        )
    return {content: row[name] for content, row in rows}


def heard_column(column: str) -> str:
    """What the column of a manifest is called that has the class nearest to a clip, of an embedding of that label."""
    return HEARD + column


def _rows(folder: str | Path) -> list[tuple[int, dict[str, str]]]:
    """Of each clip what is in it, and its row."""
    file = Path(folder) / MANIFEST_FILE
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; give the folder of a manifest that `mmpretrain retrieve` left")
    check_seal(folder, MANIFEST_FILE, remedy=REMEDY)
    with open(file, encoding="utf-8", newline="") as lines:
        found = list(csv.DictReader(lines))
    try:
        return [(int(row["content"], 16), row) for row in found]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no manifest ({error}); {REMEDY}") from error
