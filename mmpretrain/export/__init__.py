"""Formats that an encoder leaves in for other programs; each is one module or package here.

It declares itself as `FORMAT`. Importing it is cheap: what is heavy or may be missing is imported when it writes.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmpretrain.records import Clip

# Their names in the order of the help, each a module or package of that name with a `FORMAT` in it.
FORMATS = ("avhubert", "transformers", "onnx", "stablehlo")


@dataclasses.dataclass(frozen=True)
class ExportFormat:
    """suffix: of the file that is written; "": a folder is.

    write: (folder of an exported encoder, what to write, clips) -> lines on what the user should know. What it writes
    it loads back and compares with the encoder on the clips (`parity`). Raises ValueError for an encoder that the
    format cannot hold, and where what was written says something else; then nothing is left of it.
    """

    name: str
    suffix: str
    help: str
    write: Callable[[Path, Path, Sequence[Clip]], Iterable[str]]


def find_format(name: str) -> ExportFormat:
    """name: of `FORMATS`."""
    return importlib.import_module(f"{__name__}.{name}").FORMAT


def check_installed(extra: str, *packages: str) -> None:
    """Raises ValueError naming the first of these packages, of that extra, that is not there."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"this format needs {package}, which is not installed; `pip install 'mmpretrain-jax[{extra}]'`"
            )
