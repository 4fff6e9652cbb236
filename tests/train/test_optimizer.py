"""Rates, clipping and freezing against the written rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.config import OptimizerConfig
from mmpretrain.train.optimizer import clip_by_global_norm, make_optimizer, make_schedule


def rates(schedule: str, warmup: int, num_steps: int, at) -> np.ndarray:
    schedule = make_schedule(OptimizerConfig(schedule=schedule, peak_lr=2.0, warmup_steps=warmup), num_steps)
    return np.array([float(schedule(n)) for n in at])


def test_polynomial_rate_starts_at_zero_peaks_after_the_warmup_and_ends_at_zero():
    np.testing.assert_allclose(rates("polynomial", 4, 12, [0, 1, 4, 8, 12, 20]), [0, 0.5, 2, 1, 0, 0], atol=1e-6)


def test_tri_stage_rate_starts_at_a_hundredth_and_ends_at_a_twentieth():
    expected = [0.02, 2 * (0.01 + 0.99 / 2), 2, 2 * 0.05**0.5, 0.1, 0.1]
    np.testing.assert_allclose(rates("tri_stage", 4, 12, [0, 2, 4, 8, 12, 20]), expected, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["polynomial", "tri_stage"])
def test_without_warmup_the_first_update_has_the_peak_rate(schedule):
    np.testing.assert_allclose(rates(schedule, 0, 10, [0]), [2.0])


@pytest.mark.parametrize("schedule", ["polynomial", "tri_stage"])
def test_warmup_may_be_the_whole_run(schedule):
    assert np.isfinite(rates(schedule, 10, 10, range(15))).all()


def test_updates_follow_the_reference_rule():
    config = OptimizerConfig(peak_lr=0.1, warmup_steps=0, b1=0.9, b2=0.98, eps=1e-2, weight_decay=0.1, clip_norm=1.0)
    tx = make_optimizer(config, 10)
    p = {"encoder": jnp.array([1.0, -2.0]), "head": jnp.array([[3.0]])}
    state, m, v = tx.init(p), 0.0, 0.0
    expected = np.array([1.0, -2.0, 3.0])
    for t in range(1, 4):
        g = np.array([3.0, -1.0, 0.5]) * t
        updates, state = tx.update({"encoder": jnp.asarray(g[:2]), "head": jnp.asarray(g[None, 2:])}, state, p)
        p = jax.tree.map(jnp.add, p, updates)
        g = g * min(1, 1.0 / (np.linalg.norm(g) + 1e-6))
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        rate = 0.1 * (10 - (t - 1)) / 10
        step = np.sqrt(1 - 0.98**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-2)
        expected = expected - rate * (step + 0.1 * expected)
        np.testing.assert_allclose(np.concatenate([p["encoder"], p["head"][0]]), expected, rtol=1e-5)


def test_small_gradients_are_not_clipped():
    tx = clip_by_global_norm(1.0)
    g = {"a": jnp.array([0.3, 0.4])}
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0]["a"], g["a"])
