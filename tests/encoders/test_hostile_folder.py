"""Encoder folders of strangers, sealed like any other: what cannot be is refused in a line, before memory is taken."""

import json
import shutil
import time
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.export.avhubert.checkpoint import import_checkpoint
from mmpretrain.files import seal
from tests.export.avhubert.test_checkpoint import content, small_arrays
from tests.export.avhubert.torch_files import save


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    save(folder / "file.pt", content(small_arrays()), layout="zip")
    import_checkpoint(folder / "file.pt", folder / "good")
    return folder / "good"


@pytest.fixture
def refused(good, tmp_path):
    """refused(change): the message with which the folder is refused after `change(folder)`."""

    def run(change) -> str:
        bad = shutil.copytree(good, tmp_path / "bad")
        change(bad)
        (bad / "digests.json").unlink()
        seal(bad)
        begin, _ = time.monotonic(), tracemalloc.start()
        with pytest.raises(ValueError, match="bad") as caught:
            load_encoder(bad)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert time.monotonic() - begin < 20
        assert peak < 200 * 2**20
        assert len(str(caught.value)) < 800
        return str(caught.value)

    return run


def model_field(name: str, value):
    def change(folder) -> None:
        config = json.loads((folder / "config.json").read_text())
        *above, last = name.split(".")
        inner = config["model"]
        for part in above:
            inner = inner[part]
        inner[last] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 10**9, "model.width=1000000000; it must be"),
        ("num_layers", 10**6, "model.num_layers=1000000; it must be"),
        ("num_layers", 1024, "tensor"),
        ("width", 65_536, "tensor"),
        ("mlp_dim", 65_536, "tensor"),
        ("width", 13, "model.num_heads=2; it must be a divisor"),
        ("inputs.pixel_std", 0, "model.inputs.pixel_std=0; it must be above 0"),
        ("inputs.pixel_mean", float("nan"), "model.inputs.pixel_mean=nan"),
        ("inputs.view", "xyz", "model.inputs.view='xyz'"),
        ("inputs", None, "model.inputs=None"),
        ("modalities", "audio", "model.modalities='audio'"),
        ("modalities", [[]], "model.modalities"),
        ("temperature", 0, "model.temperature=0"),
        ("dtype", "int8", "model.dtype='int8'"),
        ("wdith", 3, "'wdith'"),
    ],
)
def test_a_configuration_is_checked_before_anything_is_made_of_it(refused, field, value, message):
    assert message in refused(model_field(field, value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "holds 3, no object"), ("[]", "holds []"), ("null", "holds null"), ("{", "damaged"),
        ("[" * 100_000, "bad"),
        ('{"format": ' + "9" * 10_000 + "}", "bad"), (" " * 2**21 + "{}", "is no configuration of an encoder"),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_other_texts_are_no_configuration(refused, text, message):
    assert message in refused(lambda folder: (folder / "config.json").write_text(text))


@pytest.mark.parametrize("missing", ["model", "lineage"])
def test_its_parts_are_there(refused, missing):
    def change(folder) -> None:
        config = json.loads((folder / "config.json").read_text())
        del config[missing]
        (folder / "config.json").write_text(json.dumps(config))

    assert missing in refused(change)


@pytest.mark.parametrize("bad", [np.nan, np.inf, "float16", "int32"])
def test_weights_are_finite_float32(refused, bad):
    def change(folder) -> None:
        tensors = load_file(folder / "model.safetensors")
        name = "transformer.norm.scale"
        tensors[name] = tensors[name].astype(bad) if isinstance(bad, str) else np.full_like(tensors[name], bad)
        save_file(tensors, folder / "model.safetensors")

    assert "'transformer.norm.scale' is of" in refused(change)
