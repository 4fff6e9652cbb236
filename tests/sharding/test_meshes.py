"""The same step on one device and on meshes of eight agrees, and parameters are really cut over the mesh."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmpretrain.config import ParallelConfig
from mmpretrain.parallel.mesh import batch_multiple, make_mesh, shard_batch, spec_of
from tests.slow import others_slow
from tests.tiny import random_batch, tiny_model

ROOT = Path(__file__).parents[2]
SUMS = {"data": 29, "mixed": 72}  # 12 batch norms, forward and backward, and what else is summed


@pytest.fixture(scope="module", params=others_slow(["mixed", "data fsdp accelerator"], "mixed"))
def outcome(request, tmp_path_factory):
    """What the step came to on one device and on these meshes: (arrays by mesh, report, names of the meshes)."""
    names = request.param.split()
    return *steps_on(tmp_path_factory.mktemp("sharding") / "arrays.npz", "one", *names), names


def steps_on(file: Path, *names: str):
    done = subprocess.run(
        [sys.executable, "-m", "tests.sharding.one_step", str(file), *names], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(file, allow_pickle=False) as arrays:
        by_mesh = {}
        for name in arrays.files:
            mesh, _, key = name.partition(" ")
            by_mesh.setdefault(mesh, {})[key] = arrays[name]
    return by_mesh, json.loads(done.stdout.splitlines()[-1])


def test_one_step_is_the_same_on_every_mesh(outcome):
    arrays, _, names = outcome
    one = {key: value for key, value in arrays["one"].items() if not key.startswith("evaluation ")}
    for mesh in names:
        assert arrays[mesh].keys() >= one.keys()
        moved = 0
        for key, expected in one.items():
            np.testing.assert_allclose(arrays[mesh][key], expected, rtol=1e-4, atol=1e-5, err_msg=f"{mesh} {key}")
            if key.startswith("['params']"):
                moved += np.abs(expected - one["start " + key.removeprefix("['params']")]).max() > 1e-4
        assert moved > 50  # most parameters moved by more than the tolerance
    assert one["['grad_norm']"] > 0.1


def test_every_device_has_its_share_of_the_work_and_evaluation_says_the_same(outcome):
    arrays, report, names = outcome
    for mesh in {"data", "mixed"} & set(names):
        assert report[mesh + " flops"] < 1.45 * report["one flops"] / 8, mesh
    sums = {key: value for key, value in arrays["one"].items() if key.startswith("evaluation ")}
    assert len(sums) > 5
    for key, expected in sums.items():
        for mesh in {"mixed"} & set(names):
            np.testing.assert_allclose(arrays[mesh][key], expected, rtol=1e-4, atol=1e-4, err_msg=key)


def test_validation_masks_are_the_same_on_every_mesh(outcome):
    arrays, _, names = outcome
    masks = {key: value for key, value in arrays["one"].items() if key.startswith("validation ")}
    assert len(masks) == 5
    for mesh in names:
        for key, expected in masks.items():
            np.testing.assert_array_equal(arrays[mesh][key], expected, err_msg=f"{mesh} {key}")


def test_a_step_without_pictures_is_good_and_moves_no_statistics(outcome):
    _, report, names = outcome
    for mesh in ("one", *names):
        assert report[mesh + " blind"] == {"good": True, "finite": True, "statistics": True}, mesh


def test_a_batch_norm_exchanges_once_forward_and_once_backward(outcome):
    _, report, names = outcome
    for mesh in SUMS.keys() & set(names):
        assert report[mesh + " sums"] <= SUMS[mesh], mesh


@pytest.mark.slow
def test_parts_of_a_batch_on_a_mesh_equal_the_whole_on_one_device_and_no_clip_moves(tmp_path):
    arrays, _ = steps_on(tmp_path / "arrays.npz", "sound")
    sound = {name: {k.removeprefix("sound "): v for k, v in arrays[name].items()} for name in ("one", "parts", "whole")}
    exchanges = {name: found.pop("exchanges").tolist() for name, found in sound.items()}
    assert exchanges["parts"] == exchanges["whole"], "all but sums"
    assert len(sound["one"]) > 30
    for key, expected in sound["one"].items():
        np.testing.assert_allclose(sound["parts"][key], expected, rtol=1e-4, atol=1e-5, err_msg=key)


def test_parameters_are_cut_over_the_mesh(outcome):
    _, report, names = outcome
    expected = {
        # name: whole shape, then one device's part on the meshes 8x1x1, 2x2x2, 1x8x1
        "encoder.frontends.audio.proj.kernel": ([104, 16], [104, 16], [104, 8], [104, 2]),
        "encoder.transformer.layers.attention.qkv.kernel": (
            [1, 16, 3, 2, 8], [1, 16, 3, 2, 8], [1, 8, 3, 1, 8], [1, 2, 3, 2, 8]
        ),
        "encoder.transformer.layers.mlp_in.kernel": ([1, 16, 32], [1, 16, 32], [1, 8, 16], [1, 2, 32]),
        "encoder.transformer.layers.mlp_out.kernel": ([1, 32, 16], [1, 32, 16], [1, 16, 8], [1, 32, 2]),
        "head.embeddings": ([8, 8], [8, 8], [4, 8], [8, 8]),
        "encoder.frontends.video.resnet.blocks.3.conv2.kernel": (
            [3, 3, 32, 32], [3, 3, 32, 32], [3, 3, 32, 16], [3, 3, 32, 4]
        ),
        # Four channels do not divide over eight devices: whole on each.
        "encoder.frontends.video.resnet.stem.kernel": ([5, 7, 7, 4], [5, 7, 7, 4], [5, 7, 7, 2], [5, 7, 7, 4]),
        "mask_embedding": ([104], [104], [104], [104]),
    }  # fmt: skip
    for name, (whole, *parts) in expected.items():
        for mesh, part in zip(("data", "mixed", "fsdp"), parts, strict=True):
            if mesh in names:
                assert report[mesh][name] == [whole, part], (mesh, name)
        assert report["one"][name] == [whole, whole]


def test_the_optimizer_lives_where_the_parameters_do(outcome):
    _, report, names = outcome
    assert all(report[mesh + " moments"] for mesh in ("one", *names))


def test_an_axis_is_used_once_and_only_where_it_divides():
    mesh = jax.sharding.AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    assert spec_of(("embed", "mlp"), (8, 6), mesh) == P("fsdp", "tensor")
    assert spec_of(("embed", "mlp"), (6, 5), mesh) == P(None, None)
    assert spec_of(("embed", "embed"), (8, 8), mesh) == P("fsdp", None)
    assert spec_of(("embed", "heads", None), (3, 8, 4, 5), mesh) == P(None, "fsdp", "tensor", None)  # a stack of layers
    assert spec_of(("batch", "time"), (16, 7), mesh) == P(("data", "fsdp"), None)
    assert spec_of((None, "batch"), (16, 4), mesh) == P(None, None)


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    devices = jax.devices()[:1]
    assert make_mesh(ParallelConfig(), devices).shape == {"data": 1, "fsdp": 1, "tensor": 1}
    with pytest.raises(ValueError, match=r"parallel=\{'data': 1, 'fsdp': 3, .* does not multiply to the 1 devices"):
        make_mesh(ParallelConfig(-1, 3, 1), devices)
    with pytest.raises(ValueError, match=r"set one of parallel\.data, parallel\.fsdp, parallel\.tensor to -1"):
        make_mesh(ParallelConfig(2, 1, 1), devices)


class Chip:
    """A device of slice `slice_index`, as far as laying out a mesh asks."""

    platform, device_kind = "gpu", "a GPU"

    def __init__(self, number: int, slice_index: int):
        self.id, self.slice_index, self.process_index = number, slice_index, slice_index


def test_the_data_axis_spans_the_slices_and_the_others_stay_within_one():
    chips = [Chip(number, slice_index=number // 4) for number in range(8)]
    mesh = make_mesh(ParallelConfig(4, 2, 1, slices=2), chips)
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)[..., 0]
    assert slices.tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]
    with pytest.raises(ValueError, match=r"parallel\.slices=2 does not divide parallel\.data=1"):
        make_mesh(ParallelConfig(1, 8, 1, slices=2), chips)
    with pytest.raises(ValueError, match=r"parallel\.slices=4 is not the number of slices of this run"):
        make_mesh(ParallelConfig(8, 1, 1, slices=4), chips)


def test_a_batch_keeps_its_numbers():
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    batch = random_batch((4, 3), model=tiny_model("audio"))
    placed = shard_batch(batch, mesh)
    np.testing.assert_array_equal(placed.inputs["audio"], batch.inputs["audio"])
    assert batch_multiple(mesh) == 1
