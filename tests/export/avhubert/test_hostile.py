"""Checkpoints made to exhaust, to crash or to slip through: each ends as one short line, soon and in little memory."""

import io
import math
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from mmpretrain.export.avhubert.checkpoint import import_checkpoint
from mmpretrain.export.avhubert.pickle_data import MAX_BYTES, MAX_OPCODES, Placeholder, read_pickle, shown
from mmpretrain.export.avhubert.torch_file import open_torch_file
from tests.export.avhubert.test_checkpoint import INPUTS, NETWORK, OURS, content, small_arrays
from tests.export.avhubert.torch_files import LAYOUTS, Dictionary, Tensor, save
from tests.slow import others_slow

MERSENNE, EQUAL = 2**61 - 1, range(8, 150_000)  # Python's hash of their products is equal
SECONDS, MEGABYTES = 10, 400  # for one file, however it is made


@pytest.fixture
def refused(tmp_path):
    """refused(): the message with which `bad.pt` is refused, after a check of its form, the time and the memory."""

    def run() -> str:
        begin, _ = time.monotonic(), tracemalloc.start()
        with pytest.raises(ValueError, match=r"^\S*bad\.pt: ") as caught:
            import_checkpoint(tmp_path / "bad.pt", tmp_path / "encoder")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert time.monotonic() - begin < SECONDS
        assert peak < MEGABYTES * 2**20
        assert not (tmp_path / "encoder").exists()
        message = str(caught.value).replace(str(tmp_path), "")
        assert len(message) < 350
        assert "\n" not in message
        return message

    return run


def doubled(times: int = 60) -> tuple:
    """A pair of a pair of a pair: 2^times leaves, which any walk through it would visit."""
    value = ("ha",)
    for _ in range(times):
        value = (value, value)
    return value


def nested(times: int = 3_000) -> list:
    value = []
    for _ in range(times):
        value = [value]
    return value


class Made:
    """An object that a function makes of `value`."""

    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return sys.modules["sentencepiece"].load, (self.value,)


def places(value) -> dict:
    """Where in a checkpoint something may stand that should be plain."""
    return {
        "key of a tensor": {"model": {Made(value): Tensor.of(np.ones(3))}},
        "tensor": {"model": {"mask_emb": value}},
        "option": {"cfg": {"model": NETWORK | {"sim_type": value}, "task": INPUTS}},
        "fixed": {"cfg": {"model": NETWORK | {"activation_fn": value}, "task": INPUTS}},
        "shape": {"model": {"mask_emb": Tensor(np.ones(3), 0, value, value)}},
        "number": {"model": {"mask_emb": Tensor(np.ones(3), 0, (value,), (1,))}},
        "state": {"model": value},
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", places(()))
def test_nested_and_shared_values_are_not_walked_through(tmp_path, refused, layout, where):
    save(tmp_path / "bad.pt", content(small_arrays(), **places(doubled())[where]), layout=layout)
    message = refused()
    assert message.count("'ha'") <= 1, message


def test_nor_is_a_tuple_that_is_a_key(tmp_path, refused):
    key = b"(X\2\0\0\0hat" + b"2\x86" * 60
    zipped(tmp_path / "bad.pt", ("archive/data.pkl", b"}X\5\0\0\0model}" + key + b"Nss."))
    assert "is no plain tensor but a NoneType" in refused()
    assert read_pickle(io.BytesIO(b"}" + key + b"Ns.")).popitem()[1] is None


def test_nor_are_long_and_deep_ones(tmp_path, refused):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # of the pickler
    try:
        save(tmp_path / "bad.pt", content(small_arrays(), **places(nested())["option"]), layout="zip")
    finally:
        sys.setrecursionlimit(limit)
    assert "sim_type=a list; encoders here have" in refused()
    for value, says in (("x" * 10**6, "'" + "x" * 120 + "'..."), (7**400_000, "a number of 1122942 bits")):
        save(tmp_path / "bad.pt", content(small_arrays(), **places(value)["option"]), layout="zip")
        assert f"sim_type={says}; encoders here" in refused()
    save(tmp_path / "bad.pt", content({"n" * 10**6 + "\n\x1b[2J": np.ones(3)}), layout="zip")
    assert "\x1b" not in refused()


def test_what_a_message_says_of_a_value():
    assert shown("a\nb") == "'a\\nb'"
    assert [shown(value) for value in (None, True, 0.5, -3, (), {})] == [
        "None", "True", "0.5", "-3", "a tuple", "a dict"
    ]  # fmt: skip
    assert shown(Placeholder("os.system\n" + "x" * 1000, args=(doubled(),))).startswith("<os.system\\nxxx")
    assert len(shown(Placeholder("x" * 1000))) < 140


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"}" * (MAX_OPCODES + 1), "more than 1000000 opcodes"),
        (b"cA\nB\n" + b"q\0" + b"h\0)R" * MAX_OPCODES, "more than 1000000 opcodes"),
        (b"cA\nB\n0(" + b"N" * 90_000 + b"tq\1" + b"cA\nB\nh\1}\x92" * 90_000 + b"\0", "opcode"),
        (b"}(" + b"".join(b"\x8a\x0a%bN" % (MERSENNE * n).to_bytes(10, "little") for n in EQUAL) + b"ub", "damaged"),
        (b"Np%d\n" % 2**70, "its memo has an entry a number of 71 bits"),
        (b"Np-1\n", "its memo has an entry -1"),
        (b"I" + b"9" * 5000 + b"\n.", "damaged"),
        (b"X\xff\xff\xff\x7fabc.", "damaged or cut off"),
        (b"\x95" + b"\xff" * 8 + b"N", "damaged"),
        (b"X" + struct.pack("<I", MAX_BYTES) + b"x" * MAX_BYTES + b".", f"larger than {MAX_BYTES} bytes"),
        (b"K\1K\2\x93.", "damaged"),
        (b"]K\1b.", "a list has no state"),
        (b"K\1K\2s.", "damaged"),
        (b"(((((.", "damaged"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_pickles_end(pickled, message):
    begin = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        read_pickle(io.BytesIO(pickled))
    assert time.monotonic() - begin < SECONDS
    assert len(str(caught.value)) < 300


def with_label(**parts) -> dict:
    """The tensors of a checkpoint, of which one is made of these parts."""
    made = dict(flat=np.ones(45, np.float32), offset=0, shape=(9, 5), strides=(5, 1)) | parts
    tensors = {name: Tensor.of(array) for name, array in small_arrays().items()}
    return tensors | {"label_embs_concat": Tensor(made["flat"], made["offset"], made["shape"], made["strides"])}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "parts",
    [
        dict(shape=(2**36, 5), strides=(0, 0)), dict(shape=(2**36, 5), strides=(0, 1)),
        dict(shape=(46, 5), strides=(0, 1)), dict(shape=(20, 5), strides=(1, 1)), dict(strides=(-5, 1)),
        dict(offset=-1), dict(offset=2**60), dict(shape=(-9, 5)),
        dict(shape=(9, 5, 1), strides=(5, 1)), dict(shape=(True, 5)), dict(shape=(9.0, 5)), dict(shape=[9, 5]),
        dict(shape=(1,) * 100, strides=(1,) * 100), dict(shape=(2**39,) * 8, strides=(0,) * 8), dict(offset=1),
        dict(strides=(2**39, 1)),
    ],
    ids=str,
)  # fmt: skip
def test_a_tensor_claims_no_more_than_is_there(tmp_path, refused, layout, parts):
    save(tmp_path / "bad.pt", content({}, model=with_label(**parts)), layout=layout)
    assert "'label_embs_concat'" in refused()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_tensors_together_claim_no_more_than_is_there(tmp_path, refused, layout):
    shared = Tensor.of(np.ones(100_000, np.float32))
    save(tmp_path / "bad.pt", content({}, model={f"t{i}": shared for i in range(1000)}), layout=layout)
    assert "its tensors would have" in refused()


@pytest.mark.parametrize(
    "dtype", [np.int32, np.int64, np.uint8, bool, "bfloat16 with nan", "inf", "nan", "too large"], ids=str
)
@pytest.mark.parametrize("name", others_slow(["label_embs_concat", "encoder.layers.1.fc1.bias"], "label_embs_concat"))
def test_weights_are_finite_numbers(tmp_path, refused, dtype, name):
    shape, says = small_arrays()[name].shape, "holds numbers that are none or too large"
    if isinstance(dtype, str):
        kind = {"bfloat16 with nan": ml_dtypes.bfloat16, "too large": np.float64}.get(dtype, np.float16)
        array = np.ones(shape, kind)
        array.flat[3] = {"inf": -math.inf, "too large": 1e39}.get(dtype, math.nan)
    else:
        array, says = np.ones(shape, dtype), f"is of {np.dtype(dtype)}, not of float32, float16, bfloat16, float64"
    save(tmp_path / "bad.pt", content(small_arrays() | {name: array}), layout="zip")
    assert f"'{name}' {says}" in refused()


def test_a_tap_that_is_divided_by_its_norm_has_one(tmp_path, refused):
    weights = small_arrays()["encoder.pos_conv.0.weight_v"].copy()
    weights[..., 5] = 0
    save(tmp_path / "bad.pt", content(small_arrays() | {"encoder.pos_conv.0.weight_v": weights}), layout="zip")
    assert "'encoder.pos_conv.0.weight_v' has norm 0 at tap 5" in refused()


def test_types_that_we_do_not_know_are_named(tmp_path, refused):
    """ComplexFloatStorage, and what new versions of PyTorch write for float8."""
    save(tmp_path / "good.pt", content(small_arrays()), layout="stream")
    whole = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "bad.pt").write_bytes(whole.replace(b"ctorch\nHalfStorage\n", b"ctorch\nComplexFloatStorage\n"))
    assert "is a torch.ComplexFloatStorage; known are Double, Float, Half, BFloat16" in refused()
    pickled = b"ctorch._utils\n_rebuild_tensor_v3\n(NK\0))\x89Nctorch\nfloat8_e4m3fn\ntR"
    file = b"}(X\5\0\0\0model}(X\1\0\0\0aXu"
    file = b"\x80\x02" + file.replace(b"Xu", pickled + b"uu.")
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("archive/data.pkl", file)
    assert "'a' is no plain tensor but a tensor of <torch.float8_e4m3fn>" in refused()


def zipped(path, *entries: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)


def test_zips_are_whole_and_have_each_entry_once(tmp_path, refused):
    save(tmp_path / "good.pt", content(small_arrays()), layout="zip")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "good.pt", "a") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": 1}, 2))
    (tmp_path / "good.pt").rename(tmp_path / "bad.pt")
    assert "two entries 'archive/data.pkl'" in refused()
    # Entries that all are the same bytes of the file.
    zipped(tmp_path / "bad.pt", ("archive/data.pkl", b"N."), *((f"archive/data/{i}", b"x" * 99) for i in range(3)))
    whole = bytearray((tmp_path / "bad.pt").read_bytes())
    directory = [i for i in range(len(whole)) if whole[i : i + 4] == b"PK\x01\x02"]
    whole[directory[2] + 42 : directory[2] + 46] = whole[directory[3] + 42 : directory[3] + 46]
    (tmp_path / "bad.pt").write_bytes(whole)
    assert "lies over another, or beyond the end" in refused()
    # Sizes that are not there, alike in both places, and different ones.
    for packed, size, says in ((2**31, 2**31, "beyond the end"), (99, 2**31, "99 bytes, but 2147483648 are claimed")):
        zipped(tmp_path / "bad.pt", ("archive/data.pkl", b"N."), ("archive/data/0", b"x" * 99))
        whole = bytearray((tmp_path / "bad.pt").read_bytes())
        last = whole.rfind(b"PK\x01\x02")
        whole[last + 20 : last + 28] = struct.pack("<II", packed, size)
        (tmp_path / "bad.pt").write_bytes(whole)
        assert says in refused()
    zipped(tmp_path / "bad.pt", *((f"{i}" + "m" * 65_000, b"") for i in range(260)))
    assert "its directory of" in refused()


@pytest.mark.parametrize(
    ("network", "inputs", "ours", "field"),
    [
        ({}, {"image_std": 0.0}, {}, "inputs.pixel_std=0.0"),
        ({}, {"image_std": math.nan}, {}, "inputs.pixel_std=nan"),
        ({}, {"image_std": 10**400}, {}, "inputs.pixel_std=inf"),
        ({}, {"image_mean": math.inf}, {}, "inputs.pixel_mean=inf"),
        ({}, {"image_crop_size": -5}, {}, "inputs.image_size=-5"),
        ({}, {"image_crop_size": 10**9}, {}, "inputs.image_size=1000000000"),
        ({"logit_temp": 0.0}, {}, {}, "temperature=0.0"),
        ({"logit_temp": -1}, {}, {}, "temperature=-1.0"),
        ({"encoder_layers": -3}, {}, {}, "num_layers=-3"),
        ({"encoder_layers": 0}, {}, {}, "num_layers=0"),
        ({"dropout": 7}, {}, {}, "dropout=7.0"),
        ({"encoder_layerdrop": -0.5}, {}, {}, "layerdrop=-0.5"),
        ({"feature_grad_mult": math.nan}, {}, {}, "feature_grad_scale=nan"),
        ({"modality_fuse": "sum"}, {}, {}, "fusion='sum'"),
        ({}, {}, {"view": "xyz"}, "inputs.view='xyz'"),
        ({}, {}, {"crop_size": 3}, "crop_size=3; it must be a number of pixels, at least model.inputs.image_size="),
        ({}, {}, {"resnet_width": -2}, "resnet_width=-2"),
        ({"encoder_attention_heads": -2}, {}, {}, "encoder_attention_heads=-2"),
        ({"conv_pos_groups": 0}, {}, {}, "conv_pos_groups=0"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_an_imported_configuration_passes_the_checks_of_recipes(tmp_path, refused, network, inputs, ours, field):
    cfg, extra = {"model": NETWORK | network, "task": INPUTS | inputs}, {"mmpretrain": OURS["mmpretrain"] | ours}
    save(tmp_path / "bad.pt", content(small_arrays(), cfg=cfg, extra_state=extra), layout="zip")
    assert field in refused()


def test_a_checkpoint_with_odd_company_is_still_read(tmp_path):
    """What lies beside the encoder may be as deep and as large as it likes."""
    save(
        tmp_path / "file.pt",
        content(small_arrays(), criterion=doubled(), task_state={"x": [Dictionary()] * 1000, ("a", 1): 7**5000}),
        layout="zip",
    )
    assert import_checkpoint(tmp_path / "file.pt", tmp_path / "encoder") == []
    with open_torch_file(tmp_path / "file.pt") as file:
        assert len(file.content["criterion"]) == 2
