"""Files of `torch.save`, read without PyTorch and without running anything in them, and written so that it reads them.

Two layouts: a zip (PyTorch 1.6 and later) and the stream of pickles before that. Tensors stay in the file until asked
for: an optimizer's state, often most of a checkpoint, is passed over.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from mmpretrain.export.avhubert.pickle_data import Placeholder, read_pickle
from mmpretrain.files import whole_file

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
STREAM_MAGIC, STREAM_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of the old layout
DTYPES = {
    "Double": np.dtype(np.float64), "Float": np.dtype(np.float32), "Half": np.dtype(np.float16),
    "BFloat16": np.dtype(ml_dtypes.bfloat16), "Long": np.dtype(np.int64), "Int": np.dtype(np.int32),
    "Short": np.dtype(np.int16), "Char": np.dtype(np.int8), "Byte": np.dtype(np.uint8), "Bool": np.dtype(np.bool_),
}  # fmt: skip
REBUILD_TENSOR, REBUILD_PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
PICKLE_PROTOCOL = 2
MAX_ELEMENTS = 2**40  # no size, stride or offset of a tensor is more


@dataclasses.dataclass(frozen=True)
class Storage:
    """A flat array in the file: elements `first` to `first + numel` of the one called `key`, `total` long."""

    key: str
    kind: str  # PyTorch's name of its type
    total: int
    first: int
    numel: int

    @property
    def dtype(self) -> np.dtype:
        name = self.kind.rpartition(".")[2].removesuffix("Storage")
        if name not in DTYPES:
            raise ValueError(f"storage {self.key} is a {self.kind}; known are {', '.join(DTYPES)}")
        return DTYPES[name]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in the file; `np.asarray` reads it, in the file's own dtype."""

    name: str
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    load: Callable[[Storage], np.ndarray] = dataclasses.field(repr=False)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        flat = self.load(self.storage)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if not math.prod(self.shape):
            return np.zeros(self.shape, dtype or flat.dtype)
        if last >= len(flat):
            raise ValueError(f"tensor {self.name!r} reaches beyond its storage of {len(flat)} elements")
        strides = [stride * flat.itemsize for stride in self.strides]
        array = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)
        return np.array(array, dtype, copy=copy)


class TorchFile:
    """An open file. `content` is its value as plain data and placeholders (`pickle_data`)."""

    def __init__(self, content: Any, load: Callable[[Storage], np.ndarray]):
        self.content, self._load = content, load

    def tensors(self, nodes: Mapping[str, Any]) -> dict[str, StoredTensor]:
        """The tensors of a state dict of `content`. Raises ValueError naming an entry that is no tensor."""
        return {str(name): self._tensor(str(name), node) for name, node in nodes.items()}

    def _tensor(self, name: str, node: Any) -> StoredTensor:
        if isinstance(node, Placeholder) and node.name == REBUILD_PARAMETER and node.args:
            node = node.args[0]
        if not isinstance(node, Placeholder) or node.name != REBUILD_TENSOR or len(node.args) < 4:
            what = node.name if isinstance(node, Placeholder) else type(node).__name__
            raise ValueError(f"{name!r} is no plain tensor but a {what}")
        storage, offset, shape, strides = node.args[:4]
        sizes = (offset, *shape, *strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else (None,)
        whole = all(type(size) is int and 0 <= size < MAX_ELEMENTS for size in sizes) and len(shape) == len(strides)
        if not whole or not isinstance(storage, Storage):
            raise ValueError(f"tensor {name!r} has no shape, strides or storage that could be")
        return StoredTensor(name, storage, offset, shape, strides, self._load)


@contextmanager
def open_torch_file(path: str | Path) -> Iterator[TorchFile]:
    """The file of `torch.save` at `path`, while the block lasts. Raises ValueError or OSError naming the file."""
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(len(ZIP_START))
        try:
            if start == ZIP_START:
                yield _open_zip(file)
            elif start[:1] == PICKLE_START:
                yield _open_stream(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            else:
                raise ValueError("it is no file of torch.save, which begins as a zip or a pickle")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _open_zip(file: BinaryIO) -> TorchFile:
    """One folder of entries: the value, the storages under data/, and what order their bytes have."""
    archive = _zip(lambda: zipfile.ZipFile(file))
    names = set(archive.namelist())
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"it is a zip, but none of torch.save: {len(pickles)} entries in it are called data.pkl")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError("its entries are compressed, which torch.save never does")
    root = pickles[0].removesuffix("data.pkl")

    def read(name: str) -> bytes:
        if root + name not in names:
            raise ValueError(f"it lacks the entry {root}{name}")
        return _zip(lambda: archive.read(root + name))

    order = {b"little": "<", b"big": ">"}.get(read("byteorder").strip() if f"{root}byteorder" in names else b"little")
    if order is None:
        raise ValueError("its byteorder is neither little nor big")
    content = read_pickle(BytesIO(read("data.pkl")), _storage)
    return TorchFile(content, lambda storage: _elements(read(f"data/{storage.key}"), storage, order))


def _zip(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, struct.error, ValueError) as error:
        raise ValueError(f"it is damaged or cut off ({error})") from error


def _open_stream(file: mmap.mmap) -> TorchFile:
    """Pickles of the magic number, the protocol, the machine, the value and the storages' keys, then the storages."""
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Any:
        found = _storage(pid)
        if isinstance(found, Storage):
            storages.setdefault(found.key, found)
        return found

    if (magic := read_pickle(file)) != STREAM_MAGIC:
        raise ValueError(f"it is a pickle, but none of torch.save (it begins with {str(magic)[:40]!r})")
    if (protocol := read_pickle(file)) != STREAM_PROTOCOL:
        raise ValueError(f"its layout has version {protocol!r}; known is {STREAM_PROTOCOL}")
    machine = read_pickle(file)
    little = machine.get("little_endian", True) if isinstance(machine, dict) else True
    order = "<" if little else ">"
    content, keys = read_pickle(file, persistent), read_pickle(file)
    starts: dict[str, int] = {}
    position = file.tell()
    for key in keys if isinstance(keys, list) else ():
        if key not in storages:
            raise ValueError(f"it has a storage {key!r} of unknown type")
        storage, counted = storages[key], file[position : position + 8]
        starts[key] = position + 8
        position += 8 + storage.total * storage.dtype.itemsize
        if len(counted) < 8 or position > len(file):
            raise ValueError(f"it is cut off in its storage {key}")
        if struct.unpack(f"{order}q", counted)[0] != storage.total:
            raise ValueError(f"its storage {key} is not of {storage.total} elements, as its pickle says")

    def load(storage: Storage) -> np.ndarray:
        if storage.key not in starts:
            raise ValueError(f"it lacks the storage {storage.key}")
        start = starts[storage.key]
        return _elements(file[start : start + storage.total * storage.dtype.itemsize], storage, order)

    return TorchFile(content, load)


def _storage(pid: Any) -> Any:
    """What a persistent id stands for: ("storage", type, key, device, elements[, view of a larger one])."""
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
        return Placeholder("persistent id", (pid,))
    _, kind, key, _, total, *view = pid
    if not (isinstance(kind, Placeholder) and isinstance(key, str) and type(total) is int and total >= 0):
        raise ValueError(f"a storage is described as {str(pid)[:80]}")
    first, numel = view[0][1:3] if view and view[0] is not None else (0, total)
    return Storage(key, kind.name, total, first, numel)


def _elements(data: bytes, storage: Storage, order: str) -> np.ndarray:
    dtype = storage.dtype
    if len(data) != storage.total * dtype.itemsize:
        raise ValueError(f"its storage {storage.key} has {len(data)} bytes, not {storage.total} x {dtype.itemsize}")
    raw = np.frombuffer(data, f"{order}u{dtype.itemsize}").astype(f"=u{dtype.itemsize}", copy=False)
    return raw.view(dtype)[storage.first : storage.first + storage.numel]


def write_torch_file(path: str | Path, content: Any) -> None:
    """Writes plain data and arrays (dict, list, tuple, str, int, float, bool, None, ndarray) in the zip layout.

    `torch.load(path, weights_only=True)` reads it. The file appears whole or not at all.
    """
    arrays: list[np.ndarray] = []
    pickled = struct.pack("<BB", 0x80, PICKLE_PROTOCOL) + b"".join(_pickle(content, arrays)) + b"."
    with whole_file(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        entries = {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n"}
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
        for key, array in enumerate(arrays):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), _little_endian(array).tobytes())


def _little_endian(array: np.ndarray) -> np.ndarray:
    raw = np.ascontiguousarray(array).reshape(-1).view(f"=u{array.dtype.itemsize}")
    return raw.astype(f"<u{array.dtype.itemsize}", copy=False)


def _pickle(value: Any, arrays: list[np.ndarray]) -> Iterator[bytes]:
    """The opcodes that make `value`; arrays are collected, their storages numbered in that order."""
    if value is None or isinstance(value, bool):
        yield {None: b"N", True: b"\x88", False: b"\x89"}[value]
    elif isinstance(value, int):
        size = value.bit_length() // 8 + 1
        yield b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    elif isinstance(value, float):
        yield b"G" + struct.pack(">d", value)
    elif isinstance(value, str):
        text = value.encode()
        yield b"X" + struct.pack("<I", len(text)) + text
    elif isinstance(value, Mapping):
        yield b"}("
        for pair in value.items():
            for part in pair:
                yield from _pickle(part, arrays)
        yield b"u"
    elif isinstance(value, list | tuple):
        yield b"]("[isinstance(value, tuple) :]
        for part in value:
            yield from _pickle(part, arrays)
        yield b"t" if isinstance(value, tuple) else b"e"
    elif isinstance(value, np.ndarray) and value.dtype in DTYPES.values():
        yield from _pickle_tensor(value, arrays)
    else:
        raise TypeError(f"cannot write a {type(value).__name__}")


def _pickle_tensor(array: np.ndarray, arrays: list[np.ndarray]) -> Iterator[bytes]:
    kind = next(name for name, dtype in DTYPES.items() if dtype == array.dtype)
    strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    yield b"c" + "\n".join(REBUILD_TENSOR.rsplit(".", 1)).encode() + b"\n(("
    yield from _pickle("storage", arrays)
    yield f"ctorch\n{kind}Storage\n".encode()
    for part in (str(len(arrays)), "cpu", array.size):
        yield from _pickle(part, arrays)
    yield b"tQ"
    arrays.append(array)
    for part in (0, array.shape, strides, False):
        yield from _pickle(part, arrays)
    yield b"ccollections\nOrderedDict\n)RtR"
