"""Checkpoints: what is saved is what was, while training goes on; only whole ones are found."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.checkpoint import Checkpointer
from mmpretrain.config import MaskingConfig, OptimizerConfig, ParallelConfig
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import make_trainer
from tests.tiny import random_batch, tiny_model, tiny_round


@pytest.fixture
def checkpoints(tmp_path):
    """checkpoints(keep=2): opened in one folder, closed after the test."""
    opened = []

    def open_one(keep=2):
        opened.append(Checkpointer(tmp_path / "checkpoints", keep=keep))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def state_of(value: float) -> dict:
    return {"step": jnp.int32(value), "params": {"w": jnp.full((3, 2), value), "half": jnp.ones(2, jnp.bfloat16)}}


def assert_equal(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_training_may_go_on_while_a_checkpoint_is_written(checkpoints):
    model = tiny_model("audio", width=128, mlp_dim=1024, num_layers=4)  # some megabytes, so that writing takes a while
    round_ = tiny_round(masking=MaskingConfig("feature"))
    tx = make_optimizer(OptimizerConfig(peak_lr=1e-2, warmup_steps=0), 100)
    trainer = make_trainer(MaskedPrediction(model, round_), tx, make_mesh(ParallelConfig()))
    batch = shard_batch(random_batch((14, 9), model=model), trainer.mesh)
    state, _ = trainer.step(trainer.init(0), batch)
    for attempt in range(3):
        saved = checkpoints(keep=1)
        step, copy = int(state.step), jax.tree.map(np.array, state)
        saved.save(step, state, {"best_value": 0.25})
        for _ in range(5):
            state, _ = trainer.step(state, batch)  # donates the buffers that are being written
        saved.wait()
        restored, extra = saved.restore(state)
        assert extra == {"best_value": 0.25}
        assert_equal(jax.tree.map(np.array, restored), copy)
        assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, state), attempt
    # The restored state is as good as the one that was saved: it trains on to the same numbers.
    for _ in range(5):
        restored, _ = trainer.step(restored, batch)
    assert_equal(restored, state)


def test_the_last_ones_are_kept_and_the_newest_is_restored(checkpoints):
    saved = checkpoints(keep=2)
    assert saved.latest() is None
    for step in (10, 20, 30):
        saved.save(step, state_of(step), {"step": step})
    saved.wait()
    assert saved.latest() == 30
    restored, extra = checkpoints().restore(state_of(0))
    assert_equal(restored, state_of(30))
    assert extra == {"step": 30}
    folder = saved._manager.directory
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ["20", "30"]


def test_a_step_can_be_saved_again(checkpoints):
    saved = checkpoints()
    saved.save(10, state_of(1), {"try": 1})
    saved.save(10, state_of(2), {"try": 2})
    saved.wait()
    restored, extra = checkpoints().restore(state_of(0))
    assert_equal(restored, state_of(2))
    assert extra == {"try": 2}


def test_an_unfinished_checkpoint_is_never_found(checkpoints, tmp_path):
    saved = checkpoints()
    saved.save(10, state_of(1), {})
    saved.wait()
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "10", folder / "20.orbax-checkpoint-tmp-1234")  # as a killed process leaves it
    again = checkpoints()
    assert again.latest() == 10
    again.save(20, state_of(2), {})
    again.wait()
    assert_equal(checkpoints().restore(state_of(0))[0], state_of(2))


def test_nothing_saved_is_nothing_latest_and_a_new_folder_is_made(checkpoints, tmp_path):
    assert checkpoints().latest() is None
    assert (tmp_path / "checkpoints").is_dir()
