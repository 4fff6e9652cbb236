"""Cluster assignment and the quality of fitted clusters against scikit-learn's numbers (spec section 13)."""

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.targets import kmeans
from tests.parity.fixture_files import check_error, load_arrays


def test_assignment_is_exact():
    arrays, _ = load_arrays("kmeans.npz")
    ids_N = kmeans.assign(arrays["x"].astype(np.float32), arrays["centers"].astype(np.float32))
    check_error("cluster of each point", np.sum(np.asarray(ids_N) != arrays["labels"]), 0)


def test_inertia_is_as_low_as_that_of_the_reference_fit():
    arrays, meta = load_arrays("kmeans.npz")
    frames_ND = jnp.asarray(arrays["x"], jnp.float32)
    fits = [kmeans.fit(frames_ND, meta["K"], key=jax.random.key(s), passes=100, restarts=5).inertia for s in range(5)]
    reference = arrays["inertia_mean_per_point"]
    for name, of in {"worst": np.max, "mean": np.mean}.items():
        check_error(f"inertia above the reference's, {name} of 5 fits", max(0, of(fits) - of(reference)), 0)
