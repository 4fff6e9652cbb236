"""Learning-rate schedules and Adam steps against the reference's numbers (spec section 10)."""

import jax.numpy as jnp
import numpy as np
import optax

from mmpretrain.config import OptimizerConfig
from mmpretrain.train import optimizer
from tests.parity.fixture_files import check, groups, load_arrays


def check_schedule(case: dict, config: OptimizerConfig, num_steps: int) -> None:
    schedule = optimizer.make_schedule(config, num_steps)
    rates = np.array([schedule(int(n)) for n in case["num_updates"]])
    # As shares of the peak, which is 1: the limits of float32.
    check(f"learning rate, {config.schedule}", rates / config.peak_lr, case["lr"] / config.peak_lr, relative=1e-6)


def test_polynomial_decay():
    arrays, meta = load_arrays("optim.npz")
    for name, case in groups(arrays, "poly").items():
        config = OptimizerConfig("polynomial", peak_lr=meta[name]["lr"], warmup_steps=meta[name]["warmup"])
        check_schedule(case, config, meta[name]["total"])


def test_tri_stage(monkeypatch):
    arrays, meta = load_arrays("optim.npz")
    for name, case in groups(arrays, "tri").items():
        assert meta[name]["hold"] == 0, f"{name}: our schedule, like all that were published, holds no rate"
        monkeypatch.setattr(optimizer, "TRI_STAGE_START", meta[name]["init_scale"])
        monkeypatch.setattr(optimizer, "TRI_STAGE_END", meta[name]["final_scale"])
        config = OptimizerConfig("tri_stage", peak_lr=meta[name]["lr"], warmup_steps=meta[name]["warmup"])
        check_schedule(case, config, meta[name]["warmup"] + meta[name]["decay"])


def test_adam_steps(monkeypatch):
    arrays, meta = load_arrays("optim.npz")
    for name, case in groups(arrays, "adam").items():
        options = meta[name]
        rates = jnp.asarray(options["lrs"])
        monkeypatch.setattr(optimizer, "make_schedule", lambda config, num_steps, rates=rates: lambda n: rates[n])
        b1, b2 = options["betas"]
        config = OptimizerConfig(
            b1=b1, b2=b2, eps=options["eps"], weight_decay=options["weight_decay"], clip_norm=0.0
        )  # fmt: skip
        tx = optimizer.make_optimizer(config, len(rates))
        params = jnp.asarray(case["p0"])
        state = tx.init(params)
        for step in range(len(rates)):
            updates, state = tx.update(jnp.asarray(case[f"g{step}"]), state, params)
            params = optax.apply_updates(params, updates)
            check("parameters after Adam steps", params, case[f"p{step + 1}"], relative=1e-6)
