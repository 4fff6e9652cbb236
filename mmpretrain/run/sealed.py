"""Small files of a run that are believed later, each with its digest in the `digests.json` of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmpretrain.files import DRAFT, SEAL, DamagedError, digests, sealed, whole_file, write_json


def write_sealed(path: str | Path, value: Any) -> None:
    """As `files.write_json`. A kill at any moment leaves the old content or the new one, and its digest."""
    write_sealed_text(path, json.dumps(value, indent=1) + "\n")


def write_sealed_text(path: str | Path, text: str) -> None:
    """As `files.write_text`, likewise."""
    path = Path(path)
    folder, name, coming = path.parent, path.name, path.name + DRAFT
    entries = _entries(folder)
    if coming in entries:  # a kill came before or after that took the place
        last = entries.pop(coming)
        if path.exists() and digests(folder, [name])[name] == last:
            entries[name] = last
    with whole_file(path) as draft:
        with open(draft, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        new = digests(folder, [draft.name])[draft.name]
        write_json(folder / SEAL, entries | {coming: new})
    write_json(folder / SEAL, entries | {name: new})


def check_sealed(path: str | Path, *, remedy: str = "") -> None:
    """Raises DamagedError if the file is not what `write_sealed` wrote, and FileNotFoundError without a file.

    In a folder without `digests.json` nothing was sealed: there a file is what a person wrote.
    """
    path = Path(path)
    for _ in range(3):  # the file may be written between the two looks
        found = digests(path.parent, [path.name])[path.name]
        if not (path.parent / SEAL).exists():
            return
        try:
            entries = sealed(path.parent)
        except DamagedError as error:
            raise DamagedError(f"{error}; {remedy}" if remedy else str(error)) from error
        if found in (entries.get(path.name), entries.get(path.name + DRAFT)):
            return
    raise DamagedError(f"{path} is damaged: it is not what was written (by {SEAL})" + (f"; {remedy}" if remedy else ""))


def _entries(folder: Path) -> dict[str, list[int | str]]:
    """What is sealed in a folder; nothing where that is damaged: then nothing in it is believed."""
    try:
        return sealed(folder) if (folder / SEAL).exists() else {}
    except DamagedError:
        return {}
