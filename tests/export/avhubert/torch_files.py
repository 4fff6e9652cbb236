"""Files as `torch.save` writes them in both layouts, with objects of foreign classes in them, made without PyTorch."""

import contextlib
import enum
import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

KINDS = {
    np.dtype(np.float64): "Double", np.dtype(np.float32): "Float", np.dtype(np.float16): "Half",
    np.dtype(ml_dtypes.bfloat16): "BFloat16", np.dtype(np.int64): "Long", np.dtype(np.int32): "Int",
    np.dtype(np.int16): "Short", np.dtype(np.int8): "Char", np.dtype(np.uint8): "Byte", np.dtype(bool): "Bool",
}  # fmt: skip
LAYOUTS = ("zip", "stream")


class Tensor:
    """A view of a flat array, which is the storage; `of` is the usual case."""

    def __init__(self, flat: np.ndarray, offset: int, shape: tuple, strides: tuple, *, parameter: bool = False):
        self.parts, self.parameter = (Storage(flat), offset, shape, strides), parameter

    @classmethod
    def of(cls, array: np.ndarray) -> "Tensor":
        strides = tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides)[-array.ndim :]
        return cls(array.reshape(-1), 0, array.shape, strides if array.ndim else ())

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]
        args = (*self.parts, False, OrderedDict())
        if self.parameter:
            return rebuild._rebuild_parameter, (Tensor(self.parts[0].flat, *self.parts[1:]), True, OrderedDict())
        return rebuild._rebuild_tensor_v2, args


class Storage:
    def __init__(self, flat: np.ndarray):
        self.flat = flat


class Pickler(pickle.Pickler):
    """Collects the storages, each flat array once."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.flats: dict[int, np.ndarray] = {}

    def persistent_id(self, thing):
        if not isinstance(thing, Storage):
            return None
        self.flats[id(thing.flat)] = thing.flat
        kind = getattr(sys.modules["torch"], KINDS[thing.flat.dtype] + "Storage")
        return ("storage", kind, str(id(thing.flat)), "cpu", thing.flat.size)


class Dictionary:
    """As the vocabulary of targets in every released file: an object with attributes."""

    def __init__(self):
        self.symbols, self.indices = ["<s>", "<pad>", "</s>", "<unk>"], {"<s>": 0}


class Processor:
    """As a tokenizer: made by a function out of bytes."""

    def __reduce__(self):
        return sys.modules["sentencepiece"].load, (b"model",)


class ListConfig(list):
    """As an omegaconf container: a class with elements and a state of its own."""


class DictConfig:
    """As an omegaconf container that was pickled whole: what it holds is wrapped, entry by entry."""

    def __init__(self, content: dict):
        self._metadata, self._parent = AnyNode("metadata"), None
        wrapped = {
            key: DictConfig(value) if isinstance(value, dict) else AnyNode(value) for key, value in content.items()
        }
        self._content = wrapped


class AnyNode:
    def __init__(self, value):
        self._val = value


class ChoiceEnum(enum.Enum):
    CONCAT = "concat"


FOREIGN = {
    "fairseq": {}, "fairseq.data": {}, "fairseq.data.dictionary": {"Dictionary": Dictionary},
    "fairseq.dataclass": {"ChoiceEnum": ChoiceEnum},
    "omegaconf": {"ListConfig": ListConfig, "DictConfig": DictConfig, "AnyNode": AnyNode},
}  # fmt: skip


@contextlib.contextmanager
def pretended_modules():
    """Modules that the files name, there while a file is written."""

    def function(module: str, name: str):
        made = types.FunctionType((lambda *args: None).__code__, {}, name)
        made.__module__, made.__qualname__ = module, name
        return made

    contents = {name: dict(things) for name, things in FOREIGN.items()}
    contents["sentencepiece"] = {"load": function("sentencepiece", "load")}
    rebuilds = ("_rebuild_tensor_v2", "_rebuild_parameter")
    contents["torch._utils"] = {name: function("torch._utils", name) for name in rebuilds}
    contents["torch"] = {
        f"{kind}Storage": type(f"{kind}Storage", (), {"__module__": "torch"}) for kind in KINDS.values()
    }
    before, homes = {name: sys.modules.get(name) for name in contents}, {}
    for name, things in contents.items():
        sys.modules[name] = types.ModuleType(name)
        for thing_name, thing in things.items():
            setattr(sys.modules[name], thing_name, thing)
            homes[thing] = thing.__module__
            thing.__module__ = name
    try:
        yield
    finally:
        for thing, home in homes.items():
            thing.__module__ = home
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def save(path: Path, content: Any, *, layout: str, big_endian: bool = False) -> None:
    """Writes `content`, in which tensors are `Tensor`s. layout: "zip", or "stream", that of PyTorch before 1.6."""
    pickled, order = io.BytesIO(), ">" if big_endian else "<"
    pickler = Pickler(pickled)
    with pretended_modules():
        pickler.dump(content)
    raw = {}
    for key, flat in pickler.flats.items():
        size = flat.itemsize
        raw[str(key)] = flat.view(f"u{size}").astype(f"{order}u{size}").tobytes()
    if layout == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled.getvalue())
            archive.writestr("archive/byteorder", "big" if big_endian else "little")
            for key, data in raw.items():
                archive.writestr(f"archive/data/{key}", data)
            archive.writestr("archive/version", "3\n")
        return
    machine = {
        "protocol_version": 1001,
        "little_endian": not big_endian,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    with open(path, "wb") as file:
        for first in (0x1950A86A20F9469CFC6C, 1001, machine):
            pickle.dump(first, file, protocol=2)
        file.write(pickled.getvalue())
        keys = sorted(raw)
        pickle.dump(keys, file, protocol=2)
        for key in keys:
            file.write(struct.pack(f"{order}q", pickler.flats[int(key)].size) + raw[key])
