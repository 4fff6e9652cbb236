"""Bad steps: the verdict, and that nothing of one is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.config import HealthConfig, MaskingConfig, OptimizerConfig, ParallelConfig
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.guard import GOOD, HALTED, PASSED_OVER, Guard, Verdicts, judge
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer
from tests.tiny import random_batch, tiny_model, tiny_round

SOUND = tiny_model("audio")


def verdicts(losses, norms=None, **health) -> list[int]:
    """Those on steps of these losses, one after the other."""
    guard, step, seen = Guard.fresh(), 0, []
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        numbers = dict(step=jnp.int32(step), loss=jnp.float32(loss), grad_norm=jnp.float32(norm))
        guard, verdict = judge(guard, HealthConfig(**health), **numbers)
        seen.append(int(verdict))
        step += seen[-1] != HALTED
    return seen


def test_no_number_and_an_infinite_gradient_are_bad_and_stop_the_run_for_good():
    assert verdicts([3, np.nan, 3]) == [GOOD, HALTED, HALTED]
    assert verdicts([np.inf, 3], max_loss_rise=0) == [HALTED, HALTED]
    assert verdicts([3, 3, 3], [1, np.inf, 1]) == [GOOD, HALTED, HALTED]


def test_a_loss_explodes_beside_the_mean_of_the_steps_before():
    assert verdicts([4, 2, 14.9], max_loss_rise=5) == [GOOD] * 3
    assert verdicts([4, 2, 15.1], max_loss_rise=5) == [GOOD, GOOD, HALTED]
    assert verdicts([4, 2, 1e6], max_loss_rise=0) == [GOOD] * 3
    assert verdicts([1e6, 1e5], max_loss_rise=5) == [GOOD] * 2, "nothing is known before the first"
    assert verdicts([0.01] * 9 + [5.1], max_loss_rise=5)[-2:] == [GOOD, HALTED], "means below 1 nat count as 1"


def test_the_mean_forgets_old_steps_and_bad_ones_never_enter_it():
    falling = [8.0] * 50 + [2.0] * 800
    assert verdicts([*falling, 9.9], max_loss_rise=5)[-1] == GOOD
    assert verdicts([*falling, 10.5], max_loss_rise=5)[-1] == HALTED
    assert verdicts([2, 1e9, 2, 10.1], max_loss_rise=5, skip_bad_steps=1) == [GOOD, PASSED_OVER, GOOD, PASSED_OVER]


def test_so_many_in_a_row_are_passed_over():
    nan = np.nan
    assert verdicts([3, nan, nan, 3, nan, nan, nan, 3], skip_bad_steps=2) == [
        GOOD, PASSED_OVER, PASSED_OVER, GOOD, PASSED_OVER, PASSED_OVER, HALTED, HALTED
    ]  # fmt: skip


@functools.cache
def trainer(skip_bad_steps: int):
    round_ = tiny_round(masking=MaskingConfig(kind="feature", span_frames=3))
    tx = make_optimizer(OptimizerConfig(peak_lr=1e-2, warmup_steps=0), 1_000)
    health = HealthConfig(skip_bad_steps=skip_bad_steps)
    return Trainer(MaskedPrediction(SOUND, round_), tx, make_mesh(ParallelConfig()), health=health)


def train(skip_bad_steps: int, *bad_steps: int, num_steps: int = 5):
    """The states after every step, as arrays, and what is seen of the verdicts. bad_steps: whose sound has a NaN."""
    ours, seen, states = trainer(skip_bad_steps), Verdicts(), []
    state = ours.init(0)
    for step in range(1, num_steps + 1):
        batch = random_batch((12, 9), model=SOUND, seed=step)
        if step in bad_steps:
            batch.inputs["audio"][1, 3] = np.nan
        state, metrics = ours.step(state, shard_batch(batch, ours.mesh))
        seen.add(step, metrics)
        states.append(jax.tree.map(np.array, state))
    return states, *seen.look()


def same(one, other, *parts: str) -> bool:
    pairs = zip(*(jax.tree.leaves([getattr(state, part) for part in parts]) for state in (one, other)), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


LEARNED = ("params", "kept", "opt_state")


def test_a_step_that_is_passed_over_changes_nothing_but_the_count():
    states, passed_over, halted = train(1, 3)
    assert same(states[2], states[1], *LEARNED)
    assert not same(states[3], states[2], "params")
    assert [int(state.step) for state in states] == [1, 2, 3, 4, 5]
    assert [int(state.guard.passed_over) for state in states] == [0, 0, 1, 1, 1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[-1].params))
    assert halted is None
    assert str(passed_over[0]) == "step 3 (loss nan, gradient norm nan)"


def test_a_run_is_halted_before_the_bad_step_however_late_that_is_noticed():
    states, passed_over, halted = train(0, 3)
    assert halted.step == 3
    assert not passed_over
    for state in states[2:]:
        assert same(state, states[1], "step", *LEARNED)
        assert state.guard.halted
    assert not states[1].guard.halted


@pytest.mark.parametrize("metric", ["loss", "grad_norm"])
def test_the_message_says_the_numbers_the_clips_and_the_command(metric):
    _, _, halted = train(0, 2, num_steps=3)
    assert np.isnan(getattr(halted, metric))
    message = halted.message("round 1", 3.25, [f"clip{i}" for i in range(9)], "mmpretrain replay runs/x --step=2")
    assert "stopped before step 2 (loss nan, gradient norm nan); before it the mean loss was 3.25" in message
    assert "clips clip0, clip1, clip2, clip3, clip4, clip5 and 3 more" in message
    assert "`mmpretrain replay runs/x --step=2`" in message
    assert "--config.health.skip_bad_steps=10" in message
    assert "\n" not in message


def test_the_verdict_costs_no_second_copy_of_the_state():
    # Parameters that are many beside the activations: what is held besides the state is their gradient.
    model = tiny_model("audio", mlp_dim=2**15)
    tx, mesh = make_optimizer(OptimizerConfig(), 1_000), make_mesh(ParallelConfig())
    ours = Trainer(MaskedPrediction(model, tiny_round()), tx, mesh)
    batch = shard_batch(random_batch((4,), model=model), mesh)
    memory = ours.step.lower(ours.shapes, batch).compile().memory_analysis()
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(ours.shapes))
    assert memory.alias_size_in_bytes >= 0.99 * state_bytes, "the new state lies where the old one was"
    assert memory.temp_size_in_bytes < 0.8 * state_bytes
