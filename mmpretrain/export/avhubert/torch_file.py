"""Files of `torch.save`, read without PyTorch and without running anything in them, and written so that it reads them.

Two layouts: a zip (PyTorch 1.6 and later) and the stream of pickles before that. Tensors stay in the file until asked
for: an optimizer's state, often most of a checkpoint, is passed over.

What a file claims is held against the bytes that are there: a tensor has no more elements than its storage, and all
tensors together no more than twice the file's bytes (some share a storage).
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
from typing import Any

import ml_dtypes
import numpy as np

from mmpretrain.export.avhubert.pickle_data import Placeholder, read_pickle, shown
from mmpretrain.export.avhubert.torch_zip import checked, read_directory
from mmpretrain.files import whole_file

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
STREAM_MAGIC, STREAM_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of the old layout
DTYPES = {
    "Double": np.dtype(np.float64), "Float": np.dtype(np.float32), "Half": np.dtype(np.float16),
    "BFloat16": np.dtype(ml_dtypes.bfloat16), "Long": np.dtype(np.int64), "Int": np.dtype(np.int32),
    "Short": np.dtype(np.int16), "Char": np.dtype(np.int8), "Byte": np.dtype(np.uint8), "Bool": np.dtype(np.bool_),
}  # fmt: skip
REBUILD_TENSOR, REBUILD_PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
REBUILD_WITH_DTYPE = "torch._utils._rebuild_tensor_v3"  # of the types that have no storage of their own: float8, uint16
PICKLE_PROTOCOL = 2
MAX_ELEMENTS = 2**40  # no size, stride or offset of a tensor is more
MAX_DIMS = 8
MAX_SHARED = 2  # bytes of all tensors a byte of the file
MAX_MESSAGE = 300  # characters


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
            raise ValueError(f"storage {shown(self.key)} is a {self.kind[:60]}; known are {', '.join(DTYPES)}")
        return DTYPES[name]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in the file, within its storage; `np.asarray` reads it, in the file's own dtype."""

    name: str
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    load: Callable[[Storage], np.ndarray] = dataclasses.field(repr=False)

    @property
    def dtype(self) -> np.dtype:
        try:
            return self.storage.dtype
        except ValueError as error:
            raise ValueError(f"tensor {shown(self.name)}: {error}") from error

    @property
    def num_bytes(self) -> int:
        """Of all elements, however many of them lie in the same place."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        kind = self.dtype
        if not math.prod(self.shape):
            return np.zeros(self.shape, dtype or kind)
        flat = self.load(self.storage)
        strides = [stride * flat.itemsize for stride in self.strides]
        elements = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)
        # Only these are copied out of the file. Their bytes are put in order before they become numbers.
        native = np.array(elements, elements.dtype.newbyteorder("=")).view(kind)
        return native if dtype is None else native.astype(dtype, copy=False)


class TorchFile:
    """An open file. `content` is its value as plain data and placeholders (`pickle_data`)."""

    def __init__(self, content: Any, load: Callable[[Storage], np.ndarray], num_bytes: int):
        self.content, self._load, self._num_bytes = content, load, num_bytes

    def tensors(self, nodes: Mapping[Any, Any]) -> dict[str, StoredTensor]:
        """The tensors of a state dict of `content`. Raises ValueError naming an entry that is no tensor."""
        found, claimed = {}, 0
        for name, node in nodes.items():
            if not isinstance(name, str):
                raise ValueError(f"an entry among its tensors has no name but {shown(name)}")
            found[name] = self._tensor(name, node)
            claimed += found[name].num_bytes
            if claimed > MAX_SHARED * self._num_bytes:
                raise ValueError(
                    f"its tensors would have {claimed} bytes and more, but it has {self._num_bytes} bytes only"
                )
        return found

    def _tensor(self, name: str, node: Any) -> StoredTensor:
        if isinstance(node, Placeholder) and node.name == REBUILD_PARAMETER and node.args:
            node = node.args[0]
        if not isinstance(node, Placeholder) or node.name != REBUILD_TENSOR or len(node.args) < 4:
            what = node.name[:60] if isinstance(node, Placeholder) else type(node).__name__
            if what == REBUILD_WITH_DTYPE and len(node.args) > 6:
                what = f"tensor of {shown(node.args[6])}"
            raise ValueError(f"{shown(name)} is no plain tensor but a {what}; known are {', '.join(DTYPES)}")
        storage, offset, shape, strides = node.args[:4]
        whole = isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
        whole = whole and len(shape) == len(strides) <= MAX_DIMS
        if not whole or not all(type(size) is int and 0 <= size < MAX_ELEMENTS for size in (offset, *shape, *strides)):
            raise ValueError(f"tensor {shown(name)} has no shape, strides or storage that could be")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if (number := math.prod(shape)) and (last >= storage.numel or number > storage.numel):
            raise ValueError(f"tensor {shown(name)} reaches beyond its storage of {storage.numel} elements")
        return StoredTensor(name, storage, offset, shape, strides, self._load)


@contextmanager
def open_torch_file(path: str | Path) -> Iterator[TorchFile]:
    """The file of `torch.save` at `path`, while the block lasts. Raises ValueError or OSError naming the file."""
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(len(ZIP_START))
        try:
            if start != ZIP_START and start[:1] != PICKLE_START:
                raise ValueError("it is no file of torch.save, which begins as a zip or a pickle")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            yield _open_zip(content) if start == ZIP_START else _open_stream(content)
        except ValueError as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())[:MAX_MESSAGE]}") from error


def _open_zip(file: mmap.mmap) -> TorchFile:
    """One folder of entries: the value, the storages under data/, and what order their bytes have."""
    data = memoryview(file)
    entries = read_directory(data)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"it is a zip, but none of torch.save: {len(pickles)} entries in it are called data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    whole: dict[str, memoryview] = {}  # whose checksum has been tested

    def read(name: str) -> memoryview:
        if name not in whole:
            if root + name not in entries:
                raise ValueError(f"it lacks the entry {(root + name)[:60]}")
            whole[name] = checked(data, entries[root + name])
        return whole[name]

    named = bytes(read("byteorder")[:8]).strip() if f"{root}byteorder" in entries else b"little"
    if (order := {b"little": "<", b"big": ">"}.get(named)) is None:
        raise ValueError("its byteorder is neither little nor big")
    content = read_pickle(BytesIO(read("data.pkl")), _Storages())
    return TorchFile(content, lambda storage: _elements(read(f"data/{storage.key}"), storage, order), len(data))


def _open_stream(file: mmap.mmap) -> TorchFile:
    """Pickles of the magic number, the protocol, the machine, the value and the storages' keys, then the storages."""
    if (magic := read_pickle(file)) != STREAM_MAGIC:
        raise ValueError(f"it is a pickle, but none of torch.save (it begins with {shown(magic)})")
    if (protocol := read_pickle(file)) != STREAM_PROTOCOL:
        raise ValueError(f"its layout has version {shown(protocol)}; known is {STREAM_PROTOCOL}")
    machine = read_pickle(file)
    little = machine.get("little_endian", True) if isinstance(machine, dict) else True
    order = "<" if little is not False else ">"
    storages = _Storages()
    content, keys = read_pickle(file, storages), read_pickle(file)
    data, starts, position = memoryview(file), {}, file.tell()
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in storages.known:
            raise ValueError(f"it has a storage {shown(key)} of unknown type")
        kind, total = storages.known[key]
        size, counted = total * Storage(key, kind, total, 0, total).dtype.itemsize, data[position : position + 8]
        starts[key] = position + 8
        position += 8 + size
        if len(counted) < 8 or position > len(data):
            raise ValueError(f"it is cut off in its storage {shown(key)}")
        if struct.unpack(f"{order}q", counted)[0] != total:
            raise ValueError(f"its storage {shown(key)} is not of {total} elements, as its pickle says")

    def load(storage: Storage) -> np.ndarray:
        if storage.key not in starts:
            raise ValueError(f"it lacks the storage {shown(storage.key)}")
        start = starts[storage.key]
        return _elements(data[start : start + storage.total * storage.dtype.itemsize], storage, order)

    return TorchFile(content, load, len(data))


class _Storages:
    """Called with a persistent id it makes what that stands for; `known`: type and elements of each storage by key."""

    def __init__(self):
        self.known: dict[str, tuple[str, int]] = {}

    def __call__(self, pid: Any) -> Any:
        """pid: ("storage", type, key, device, elements[, view of a larger one]); anything else is a placeholder."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and isinstance(pid[0], str) and pid[0] == "storage"):
            return Placeholder("persistent id", (pid,))
        kind, key, total = pid[1], pid[2], pid[4]
        view = pid[5] if len(pid) > 5 and pid[5] is not None else (key, 0, total)
        whole = isinstance(kind, Placeholder) and isinstance(key, str) and isinstance(view, tuple) and len(view) == 3
        first, numel = view[1:] if whole else (0, 0)
        if not whole or not all(type(count) is int and 0 <= count < MAX_ELEMENTS for count in (total, first, numel)):
            raise ValueError(f"storage {shown(key)} is described as none that could be")
        if first + numel > total or self.known.setdefault(key, (kind.name, total)) != (kind.name, total):
            raise ValueError(f"storage {shown(key)} has two descriptions that differ, or a view beyond its end")
        return Storage(key, kind.name, total, first, numel)


def _elements(data: memoryview, storage: Storage, order: str) -> np.ndarray:
    """The bytes of the storage's elements as unsigned numbers in the order of the file; not copied."""
    itemsize = storage.dtype.itemsize
    if len(data) != storage.total * itemsize:
        raise ValueError(f"its storage {shown(storage.key)} has {len(data)} bytes, not {storage.total} x {itemsize}")
    return np.frombuffer(data, f"{order}u{itemsize}")[storage.first : storage.first + storage.numel]


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
