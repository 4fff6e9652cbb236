"""Files and folders that are there whole or not at all: the one way in which this project writes what it later reads.

What is written lies beside its place as NAME.draft until it is complete and on the disk, and then takes the place in
one move. A reader finds the old content or the new one, also after a power cut. A draft that a killed process left is
written over by the next writer. What is not as it was written is a `DamagedError` that names the file.

Neither JAX nor anything of ours is imported here. Checkpoints are Orbax's, which has a way of its own; `metrics.jsonl`
is appended to.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

DRAFT = ".draft"
REPLACED = ".replaced" + DRAFT  # a folder that gives way, where the system cannot exchange two in one move
SEAL = "digests.json"
_NEEDED = object()


class DamagedError(ValueError):
    """A file is not what was written: cut, empty, of another kind, or with other bits. The message names it."""


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """`with whole_file(path) as draft:` write the file `draft`; at the end it takes the place of what is at `path`.

    Folders above `path` are made. After an error `path` is as it was and the draft is gone.
    """
    path = Path(path)
    with _own_draft(path, folder=False) as draft:
        yield draft
        _to_disk(draft)
        os.replace(draft, path)
        _to_disk(path.parent)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """`with whole_folder(path) as draft:` write into the folder `draft`; at the end it replaces the folder at `path`.

    At every moment one of the two is there: whole and under its name, or, for the moment between two moves on file
    systems that cannot exchange folders (NFS), as NAME.replaced.draft, which `present_folder` finds for readers and the
    next writer puts back.
    """
    path = Path(path)
    with _own_draft(path, folder=True) as draft:
        replaced = path.with_name(path.name + REPLACED)
        if replaced.is_dir() and not path.exists():
            os.rename(replaced, path)
        yield draft
        for each in draft.rglob("*"):
            _to_disk(each)
        _to_disk(draft)
        if not path.exists():
            os.rename(draft, path)
        else:
            other = _other_draft(path)  # a name that no other writer will empty
            os.rename(draft, other)
            if not _exchange(other, path):
                shutil.rmtree(replaced, ignore_errors=True)
                os.rename(path, replaced)
                os.rename(other, path)
            shutil.rmtree(other, ignore_errors=True)
        _to_disk(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def present_folder(path: str | Path) -> Path:
    """Where the content of the folder `path` is to be read: there, but for a kill in the midst of replacing it."""
    path = Path(path)
    replaced = path.with_name(path.name + REPLACED)
    return replaced if replaced.is_dir() and not path.exists() else path


def write_text(path: str | Path, text: str) -> None:
    """UTF-8, whole or not at all; line ends stay as they are."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_new(path: str | Path, text: str) -> bool:
    """Whole, and by one process alone, on NFS too: False if the file is there already. The folder must be there."""
    path = Path(path)
    draft = _other_draft(path)
    try:
        draft.write_text(text, encoding="utf-8")
        _to_disk(draft)
        os.link(draft, path)
    except FileExistsError:
        return draft.stat().st_nlink > 1  # the server had done it, and was asked again
    except OSError:
        if not draft.exists():
            raise
        with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8") as file:  # no links here
            file.write(text)
            return True
        return False
    finally:
        draft.unlink(missing_ok=True)
    _to_disk(path.parent)
    return True


def write_json(path: str | Path, value: Any) -> None:
    """Whole or not at all. For people too: indented, with a line end at the end."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(
    path: str | Path, *, kind: type = dict, fields: Sequence[str] = (), if_missing: Any = _NEEDED, remedy: str = ""
) -> Any:
    """The value of a JSON file, a `kind` (an object of at least these fields).

    Without such a file `if_missing`, or FileNotFoundError where that is not given. Raises DamagedError for any other
    content, with the remedy if there is one to name.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        if if_missing is _NEEDED:
            raise
        return if_missing
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"no JSON: {error}", remedy) from error
    if not isinstance(value, kind):
        raise _damaged(path, f"it holds {_short(value)}, no {_KINDS[kind]}", remedy)
    if absent := [field for field in fields if field not in value]:
        raise _damaged(path, f"it lacks {', '.join(absent)}", remedy)
    return value


def write_arrays(path: str | Path, **arrays: Any) -> None:
    """Arrays under their names as one .npz file, for `read_arrays`. Whole or not at all."""
    with whole_file(path) as draft, open(draft, "wb") as file:  # given a name, NumPy would add .npz to it
        np.savez(file, **arrays)


def read_arrays(path: str | Path, *names: str, remedy: str = "") -> dict[str, np.ndarray]:
    """These arrays of an .npz file, by name, all bits checked; nothing that is pickled is read.

    Raises FileNotFoundError, or DamagedError with the remedy.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            arrays = {}
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
                    member.read()  # to the end, where its checksum is compared
            return arrays
    except Exception as error:  # whatever cut or changed bytes bring about in zipfile, zlib and NumPy
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk, not of the bytes
        reason = " ".join(str(error.args[0] if error.args else type(error).__name__).split())
        raise _damaged(path, f"no whole .npz file: {reason[:100]}", remedy) from error


def check_local(name: str, path: str | Path) -> None:
    """Raises ValueError for a path that begins like an address, say gs://, or with ~/; name: of its field or option.

    Whole-or-not writing, leases and ArrayRecord need a file system; and ~ would be a folder of that name.
    """
    if re.match("~(/|$)", str(path)):
        whole = os.path.expanduser(path)
        raise ValueError(f"{name}={str(path)!r}: a shell replaces ~ at the beginning of a word alone; give {whole!r}")
    if not (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path))):
        return
    remedy = "mount the storage and give the path of a folder in it (NFS or Filestore"
    remedy += ", or Cloud Storage FUSE: `gcsfuse BUCKET FOLDER`)" if scheme[1].lower() == "gs" else ", say)"
    if scheme[1].lower() == "file":
        remedy = "leave out file://"
    raise ValueError(
        f"{name}={str(path)!r} is an address, but only files and folders can be read and written; {remedy}"
    )


def file_digest(path: str | Path) -> str:
    """32 hexadecimal digits that change with any bit of the file; read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]  # processors have instructions for this one


def known_digest(path: str | Path) -> str:
    """As `file_digest`, of a large file that is asked for again: read anew where its size or its time has changed."""
    stat = Path(path).stat()
    return _digest(str(path), stat.st_size, stat.st_mtime_ns)


@functools.cache
def _digest(path: str, size: int, written_ns: int) -> str:
    del size, written_ns
    return file_digest(path)


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
        return read_json(Path(folder) / SEAL)
    except (FileNotFoundError, DamagedError) as error:
        raise DamagedError(f"{Path(folder) / SEAL}, which says what the files were, is missing or damaged") from error


def check_seal(folder: str | Path, *names: str, remedy: str = "") -> None:
    """Raises DamagedError naming the first of these files, by default all, that is not as it was when `seal` saw it.

    What cannot be read now, for another reason than that it is missing, is an OSError.
    """
    try:
        _check_seal(folder, names)
    except DamagedError as error:
        raise DamagedError(f"{error}; {remedy}" if remedy else str(error)) from error


def _check_seal(folder: str | Path, names: Sequence[str]) -> None:
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


_KINDS = {dict: "object", list: "list", str: "text"}


def _damaged(path: str | Path, reason: str, remedy: str) -> DamagedError:
    return DamagedError(f"{path} is damaged ({reason})" + (f"; {remedy}" if remedy else ""))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _names(folder: Path) -> list[str]:
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name != SEAL)


def _to_disk(path: Path) -> None:
    """Returns when the file's content, or the folder's list of names, would outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):  # a file system without
            raise
    finally:
        os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders in one move. False where this system or file system cannot."""
    move = _renameat2()
    if move is None:
        return False
    at_cwd, exchange = -100, 2  # of linux/fcntl.h and linux/fs.h
    return move(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0


@functools.cache
def _renameat2() -> Any:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


@contextlib.contextmanager
def _own_draft(path: Path, *, folder: bool) -> Iterator[Path]:
    """An empty draft for `path` that nobody else writes; removed if an error ends the writing."""
    new = [above for above in path.parents if not above.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for above in new:
        _to_disk(above.parent)
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
