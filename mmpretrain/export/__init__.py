"""Formats that an encoder leaves in for other programs; each is one module or package here.

It declares itself as `FORMAT`. Importing it is cheap: what is heavy or may be missing is imported when it writes.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

# Their names in the order of the help, each a module or package of that name with a `FORMAT` in it.
FORMATS = ("avhubert",)


@dataclasses.dataclass(frozen=True)
class ExportFormat:
    """suffix: of the file that is written; "": a folder is.

    write: (folder of an exported encoder, what to write) -> lines on what the user should know. Raises ValueError for
    an encoder that the format cannot hold.
    """

    name: str
    suffix: str
    help: str
    write: Callable[[Path, Path], Iterable[str]]


def find_format(name: str) -> ExportFormat:
    """name: of `FORMATS`."""
    return importlib.import_module(f"{__name__}.{name}").FORMAT
