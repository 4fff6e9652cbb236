"""Files and folders that are there whole or not at all: the one way in which this project writes what it later reads.

What is written lies beside its place as NAME.draft until it is complete, and then takes the place in one move. A reader
finds the old content or the new one. A draft that a killed process left is written over by the next writer. Neither JAX
nor anything of ours is imported here. Checkpoints are Orbax's, which has a way of its own; `metrics.jsonl` is appended
to.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

DRAFT = ".draft"
SEAL = "digests.json"
_NEEDED = object()


class DamagedError(ValueError):
    """A file is not what was written."""


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """`with whole_file(path) as draft:` write the file `draft`; at the end it takes the place of what is at `path`.

    Folders above `path` are made. After an error `path` is as it was and the draft is gone.
    """
    with _own_draft(Path(path), folder=False) as draft:
        yield draft
        os.replace(draft, path)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """`with whole_folder(path) as draft:` write into the folder `draft`; at the end it replaces the folder at `path`.

    A kill in the moment of replacing leaves no folder at `path`, never a part of one.
    """
    path = Path(path)
    with _own_draft(path, folder=True) as draft:
        yield draft
        old = _other_draft(path)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)
        os.rename(draft, path)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """UTF-8, whole or not at all; line ends stay as they are."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | Path, value: Any) -> None:
    """Whole or not at all. For people too: indented, with a line end at the end."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: str | Path, *, if_missing: Any = _NEEDED) -> Any:
    """The value of a JSON file. Without such a file `if_missing`, or FileNotFoundError where that is not given.

    Raises ValueError naming a file that holds no JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if if_missing is _NEEDED:
            raise
        return if_missing
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error


def write_arrays(path: str | Path, **arrays: Any) -> None:
    """Arrays under their names as one .npz file, for `np.load(path, allow_pickle=False)`. Whole or not at all."""
    with whole_file(path) as draft, open(draft, "wb") as file:  # given a name, NumPy would add .npz to it
        np.savez(file, **arrays)


def file_digest(path: str | Path) -> str:
    """32 hexadecimal digits that change with any bit of the file; read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]  # processors have instructions for this one


def digests(folder: str | Path, names: Iterable[str]) -> dict[str, list[int | str]]:
    """Size and digest of these files of the folder by name, as `seal` writes them."""
    return {name: [(Path(folder) / name).stat().st_size, file_digest(Path(folder) / name)] for name in names}


def seal(folder: str | Path, known: Mapping[str, Sequence[int | str]] = MappingProxyType({})) -> None:
    """Writes `digests.json`: size and digest of every other file in the folder and below. The last to be written.

    known: what is known of some of them from `digests`; those are not read again.
    """
    unknown = [name for name in _names(Path(folder)) if name not in known]
    write_json(Path(folder) / SEAL, dict(sorted({**known, **digests(folder, unknown)}.items())))


def sealed(folder: str | Path) -> dict[str, list[int | str]]:
    """What `seal` wrote. Raises DamagedError where it cannot be read."""
    try:
        entries = read_json(Path(folder) / SEAL)
    except (FileNotFoundError, ValueError) as error:
        raise DamagedError(f"{Path(folder) / SEAL}, which says what the files were, is missing or damaged") from error
    if not isinstance(entries, dict):
        raise DamagedError(f"{Path(folder) / SEAL}, which says what the files were, is damaged")
    return entries


def check_seal(folder: str | Path, *names: str) -> None:
    """Raises DamagedError naming the first of these files, by default all, that is not as it was when `seal` saw it.

    What cannot be read now, for another reason than that it is missing, is an OSError.
    """
    folder, entries = Path(folder), sealed(folder)
    for name in names or sorted({*_names(folder), *entries}):
        try:
            found = digests(folder, [name])[name]
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise DamagedError(f"{folder / name} is missing (by {SEAL})") from error
        if name not in entries:
            raise DamagedError(f"{folder / name} was not there when the folder was sealed ({SEAL})")
        if found != entries[name]:
            raise DamagedError(f"{folder / name} is damaged: it is not what was written (by {SEAL})")


def _names(folder: Path) -> list[str]:
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name != SEAL)


@contextlib.contextmanager
def _own_draft(path: Path, *, folder: bool) -> Iterator[Path]:
    """An empty draft for `path` that nobody else writes; removed if an error ends the writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + DRAFT)
    lock = _take(draft, folder)
    if lock is None:
        draft = _other_draft(path)
        if folder:
            draft.mkdir()
    try:
        yield draft
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(draft) if folder else draft.unlink()
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _take(draft: Path, folder: bool) -> int | None:
    """Makes or empties the draft and holds it until the file descriptor is closed. None if somebody else writes it now.

    A kill lets go of it, hence what a killed process left is found and used again. Where the file system knows no
    locks, it is taken without: then two that write the same at the same time are in each other's way.
    """
    try:
        if folder:
            draft.mkdir(exist_ok=True)
        lock = os.open(draft, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:  # somebody has just moved it to its place
        return None
    if not (_hold(lock) and _is_at(lock, draft)):
        os.close(lock)
        return None
    if folder:
        for left in draft.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    else:
        os.truncate(lock, 0)
    return lock


def _hold(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return True
    return True


def _is_at(lock: int, draft: Path) -> bool:
    """Whether what is held still has its name: the one who held it before may have moved it to its place."""
    try:
        return os.path.samestat(os.fstat(lock), draft.stat())
    except FileNotFoundError:
        return False


def _other_draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{DRAFT}")
