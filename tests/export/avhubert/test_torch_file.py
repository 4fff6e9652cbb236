"""Files of `torch.save` are read as PyTorch would, without it; nothing in them runs, and damage is one clear error."""

import argparse
import contextlib
import io
import os
import pickle
import pickletools
import struct
import sys
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.export.avhubert.pickle_data import Placeholder, read_pickle
from mmpretrain.export.avhubert.torch_file import open_torch_file, write_torch_file
from tests.export.avhubert.torch_files import KINDS, LAYOUTS, Dictionary, ListConfig, Processor, Tensor, save

random = np.random.default_rng(0)
BASE = random.standard_normal(30).astype(np.float32)


def tensors() -> dict[str, tuple[Tensor, np.ndarray]]:
    """Tensors of every kind, and what they hold."""
    plain = {
        str(np.dtype(dtype)): random.integers(0, 2, (2, 3)).astype(dtype)
        for dtype in (np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.int16, np.int8, np.uint8, bool)
    }
    plain |= {"scalar": np.array(7), "empty": np.zeros((0, 3), np.float32)}
    views = {
        "whole": (Tensor(BASE, 0, (6, 5), (5, 1)), BASE.reshape(6, 5)),
        "transposed": (Tensor(BASE, 0, (5, 6), (1, 5)), BASE.reshape(6, 5).T),
        "every other": (Tensor(BASE, 5, (3, 3), (5, 2)), BASE.reshape(6, 5)[1:4, ::2]),
        "expanded": (Tensor(BASE, 3, (4,), (0,)), BASE[[3, 3, 3, 3]]),
        "parameter": (Tensor(BASE, 0, (30,), (1,), parameter=True), BASE),
    }
    return {name: (Tensor.of(array), array) for name, array in plain.items()} | views


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("big_endian", [False, True])
def test_every_kind_of_tensor_is_read(tmp_path, layout, big_endian):
    wanted = tensors()
    model = OrderedDict((name, tensor) for name, (tensor, _) in wanted.items())
    save(tmp_path / "file.pt", {"model": model, "step": 3}, layout=layout, big_endian=big_endian)
    with open_torch_file(tmp_path / "file.pt") as file:
        assert file.content["step"] == 3
        found = file.tensors(file.content["model"])
        assert list(found) == list(wanted)
        for name, (_, array) in wanted.items():
            ours = np.asarray(found[name])
            assert (ours.dtype, ours.shape, found[name].shape) == (array.dtype, array.shape, array.shape), name
            np.testing.assert_array_equal(ours, array, name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_foreign_objects_are_inert(tmp_path, layout):
    items = ListConfig([1, 2])
    items.flags = None
    content = {
        "args": argparse.Namespace(layers=12), "dictionaries": [Dictionary()], "tokenizer": Processor(), "list": items,
        "set": {1, 2}, "complex": 1 + 2j, "text": "\u00e9", "bytes": b"\0\1", "numbers": (2**70, -1, 0.5, True, None),
        ("a", "tuple"): 1,
    }  # fmt: skip
    save(tmp_path / "file.pt", content, layout=layout)
    before = set(sys.modules)
    with open_torch_file(tmp_path / "file.pt") as file:
        found = file.content
    assert {"fairseq", "sentencepiece", "omegaconf", "torch"}.isdisjoint(set(sys.modules) - before)
    assert found["args"].name == "argparse.Namespace"
    assert found["args"].state == {"layers": 12}
    (dictionary,) = found["dictionaries"]
    assert dictionary.name == "fairseq.data.dictionary.Dictionary"
    assert dictionary.state == vars(Dictionary())
    assert (found["tokenizer"].name, found["list"].elements) == ("sentencepiece.load", [1, 2])
    assert (found["text"], found["numbers"]) == ("\u00e9", content["numbers"])
    assert all(isinstance(found[name], Placeholder) for name in ("set", "complex", "bytes"))


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def written_by_hand(target) -> dict[str, bytes]:
    """Pickles that make the folder `target` when Python's unpickler reads them, each by other opcodes."""
    path, code = str(target).encode(), f"import os; os.mkdir({str(target)!r})".encode()
    text, call = b"X" + struct.pack("<I", len(path)) + path, b"cos\nmkdir\n"
    return {
        "reduce": b"\x80\x02" + call + b"(" + text + b"tR.",
        "inst": b"(" + text + b"ios\nmkdir\n.",
        "obj": b"(" + call + text + b"o.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + text + b"\x85R.",
        "getattr": b"cbuiltins\ngetattr\n(cpathlib\nPath\n" + text + b"\x85RX\x05\0\0\0mkdirtR)R.",
        "exec": b"cbuiltins\nexec\nX" + struct.pack("<I", len(code)) + code + b"\x85R.",
    }


@pytest.mark.parametrize("how", written_by_hand("x"))
def test_no_opcode_runs_anything(tmp_path, how):
    target = tmp_path / "ran"
    payload = written_by_hand(target)[how]
    pickle.loads(payload)
    assert target.exists(), "the payload does nothing anyway"
    target.rmdir()
    read_pickle(io.BytesIO(payload))
    assert not target.exists()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", ["value", "key", "state dict", "first"])
def test_no_payload_in_a_file_runs(tmp_path, layout, where):
    target = tmp_path / "ran"
    payload = Payload(target)
    content = {
        "value": {"model": {}, "args": payload}, "key": {"model": {}, payload: 1}, "first": payload,
        "state dict": {"model": OrderedDict(weight=payload)},
    }[where]  # fmt: skip
    save(tmp_path / "file.pt", content, layout=layout)
    with open_torch_file(tmp_path / "file.pt") as file:
        if where == "state dict":
            with pytest.raises(ValueError, match="'weight' is no plain tensor but a posix"):
                file.tensors(file.content["model"])
    assert not target.exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_was_cut_off_is_refused(tmp_path, layout):
    file = tmp_path / "file.pt"
    save(file, {"model": {"weight": Tensor.of(BASE)}, "args": argparse.Namespace(layers=12)}, layout=layout)
    whole = file.read_bytes()
    for size in (0, 1, 5, *range(20, len(whole) - 1, 37), len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"file\.pt: ") as refused, open_torch_file(file) as opened:
            np.asarray(opened.tensors(opened.content["model"])["weight"])
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_damage_is_a_value_error_or_goes_unseen(tmp_path_factory, layout):
    folder = tmp_path_factory.mktemp("damaged")
    save(folder / "file.pt", {"model": {"weight": Tensor.of(BASE)}, "args": Dictionary()}, layout=layout)
    whole = (folder / "file.pt").read_bytes()

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=3))
    def damage(changes):
        data = bytearray(whole)
        for position, value in changes:
            data[position] = value
        (folder / "damaged.pt").write_bytes(data)
        with contextlib.suppress(ValueError), open_torch_file(folder / "damaged.pt") as file:
            if isinstance(file.content, dict) and isinstance(file.content.get("model"), dict):
                for tensor in file.tensors(file.content["model"]).values():
                    np.asarray(tensor)

    damage()


def test_pickles_made_to_exhaust_are_harmless():
    doubled = b"]" + b"".join(b"q%c(h%ch%cl" % (n, n, n) for n in range(200)) + b"."
    assert len(read_pickle(io.BytesIO(doubled))) == 2
    deep_key = b"})" + b"\x85" * 200_000 + b"Ns."
    assert len(read_pickle(io.BytesIO(deep_key))) == 1
    assert read_pickle(io.BytesIO(b"Nr\xff\xff\xff\xff.")) is None  # a memo of 2^32 entries
    with pytest.raises(ValueError, match="cut off"):
        read_pickle(io.BytesIO(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"few."))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no file of torch.save"),
        (b"# a recipe\n", "no file of torch.save"),
        (pickle.dumps({"model": 1}), "a pickle, but none of torch.save"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1002, 2), "version 1002; known is 1001"),
        ("zip", "none of torch.save: 0 entries"),
        ("compressed", "compressed, which torch.save never does"),
        ("no storage", "lacks the entry archive/data/"),
        ("short storage", "has 8 bytes, not 30 x 4"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    file = tmp_path / "file.pt"
    if isinstance(data, bytes):
        file.write_bytes(data)
    else:
        save(tmp_path / "whole.pt", {"model": {"weight": Tensor.of(BASE)}}, layout="zip")
        method = zipfile.ZIP_DEFLATED if data == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(file, "w", method) as changed:
            for name in whole.namelist():
                if data == "zip" or (data == "no storage" and "/data/" in name):
                    name, content = "readme/x", b""
                else:
                    content = whole.read(name)
                if name not in changed.namelist():
                    changed.writestr(name, content[:8] if data == "short storage" and "/data/" in name else content)
    with pytest.raises(ValueError, match=message), open_torch_file(file) as opened:
        np.asarray(opened.tensors(opened.content["model"])["weight"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("offset", "shape", "strides"), [(0, (31,), (1,)), (1, (6, 5), (5, 1)), (0, (2, 2), (1, 29))])
def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path, layout, offset, shape, strides):
    save(tmp_path / "file.pt", {"model": {"weight": Tensor(BASE, offset, shape, strides)}}, layout=layout)
    with (
        pytest.raises(ValueError, match="tensor 'weight' reaches beyond its storage of 30 elements"),
        open_torch_file(tmp_path / "file.pt") as file,
    ):
        np.asarray(file.tensors(file.content["model"])["weight"])


def test_what_is_written_comes_back_and_is_plain_enough_for_pytorch(tmp_path):
    arrays = {name: array for name, (_, array) in tensors().items()}
    content = {"cfg": {"a": [1, -300, 0.5, None, True, "\u00e9", (2**70, ())], "b": {}}, "args": None, "list": []}
    write_torch_file(tmp_path / "new" / "file.pt", content | {"model": arrays})
    with open_torch_file(tmp_path / "new" / "file.pt") as file:
        found = file.tensors(file.content.pop("model"))
        assert file.content == content
        for name, array in arrays.items():
            assert np.asarray(found[name]).dtype == array.dtype
            np.testing.assert_array_equal(found[name], array, name)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.pt"]
    # What `torch.load(weights_only=True)` takes: these opcodes and names. Read once by PyTorch 2.13 itself.
    with zipfile.ZipFile(tmp_path / "new" / "file.pt") as archive:
        opcodes = list(pickletools.genops(archive.read("archive/data.pkl")))
    assert {opcode.name for opcode, _, _ in opcodes} <= {
        "PROTO", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "LONG1", "BINFLOAT", "BINUNICODE", "EMPTY_DICT", "SETITEMS",
        "EMPTY_LIST", "APPENDS", "EMPTY_TUPLE", "TUPLE", "GLOBAL", "BINPERSID", "REDUCE", "STOP",
    }  # fmt: skip
    names = {arg for opcode, arg, _ in opcodes if opcode.name == "GLOBAL"}
    storages = {f"torch {kind}Storage" for kind in KINDS.values()}
    assert names - storages == {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}
