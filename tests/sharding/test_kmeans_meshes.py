"""k-means on meshes of eight devices agrees with one device, and frames and clusters are really cut over the mesh."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    file = tmp_path_factory.mktemp("kmeans") / "arrays.npz"
    done = subprocess.run(
        [sys.executable, "-m", "tests.sharding.one_codebook", str(file)], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays), json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mesh", ["data", "mixed", "tensor"])
def test_another_mesh_agrees_closely(outcome, mesh):
    arrays, report = outcome
    np.testing.assert_allclose(arrays[f"{mesh} centroids"], arrays["one centroids"], rtol=1e-4)
    np.testing.assert_allclose(arrays[f"{mesh} reseeded"], arrays["one reseeded"], rtol=1e-4)
    np.testing.assert_array_equal(arrays[f"{mesh} ids"], arrays["one ids"])
    assert report[mesh]["inertia"] == pytest.approx(report["one"]["inertia"], rel=1e-5)
    assert report[mesh]["batches"] == [300, 1200, 2500]


def test_the_fit_is_right_on_one_device(outcome):
    arrays, report = outcome
    distances = np.square(arrays["frames"][:, None] - arrays["one centroids"]).sum(-1)
    np.testing.assert_array_equal(arrays["one ids"], distances.argmin(1))
    assert report["one"]["inertia"] == pytest.approx(distances.min(1).mean(), rel=1e-4)


def test_frames_are_cut_over_data_and_clusters_over_tensor(outcome):
    _, report = outcome
    expected = {
        # whole shape and one device's part: blocks [T, S, B, D], sums [S, K, D]
        "one": [[2, 1, 16, 6], [2, 1, 16, 6], [1, 16, 6], [1, 16, 6]],
        "data": [[2, 8, 16, 6], [2, 1, 16, 6], [8, 16, 6], [1, 16, 6]],
        "mixed": [[2, 4, 16, 6], [2, 1, 16, 6], [4, 16, 6], [1, 8, 6]],
        "tensor": [[2, 1, 16, 6], [2, 1, 16, 6], [1, 16, 6], [1, 2, 6]],
    }
    assert {mesh: found["block"] + found["sums"] for mesh, found in report.items()} == expected
