"""What does not learn costs nothing, keeps its numbers, and begins from nothing when its time comes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmpretrain.config import FinetuneConfig, OptimizerConfig, ParallelConfig, emotion
from mmpretrain.downstream.learning import what_learns
from mmpretrain.objectives.supervised import Supervised
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.checkpoint import Checkpointer, read
from mmpretrain.train.optimizer import make_optimizer, scale_by_adam
from mmpretrain.train.step import Trainer
from mmpretrain.train.trainable import EVERYTHING, Group, Trainable
from tests.tiny import random_batch, tiny_model

OPTIMIZER = OptimizerConfig(peak_lr=1e-2, warmup_steps=0, weight_decay=0.1)
FROZEN = Trainable((Group("encoder", from_step=None),))


@functools.cache
def trainer(trainable: Trainable, *modalities: str, micro_batches: int = 1) -> Trainer:
    objective = Supervised(
        tiny_model(*modalities, width=32, num_layers=3), FinetuneConfig(tasks=(emotion("a", "b", "c"),), dropout=0.0)
    )
    tx, mesh = make_optimizer(OPTIMIZER, 100, trainable), make_mesh(ParallelConfig())
    return Trainer(objective, tx, mesh, trainable, micro_batches)


def batch_of(made: Trainer, lengths=(12, 9)):
    return shard_batch(random_batch(lengths, model=made.objective.model), made.mesh)


def changed(before: nnx.State, after: nnx.State) -> set[str]:
    """The paths of the arrays that differ."""
    before, after = (dict(nnx.to_flat_state(state)) for state in (before, after))
    return {".".join(map(str, path)) for path in before if (before[path][...] != after[path][...]).any()}


def numbers(state: nnx.State) -> nnx.State:
    return jax.tree.map(np.array, state)  # copies: a step reuses the memory of the state that it is given


def test_a_frozen_encoder_costs_its_forward_pass_alone_and_has_no_moments():
    cost, moments = {}, {}
    for name, trainable in (("full", EVERYTHING), ("frozen", FROZEN)):
        made = trainer(trainable, "audio")
        state, batch = made.init(0), batch_of(made)
        cost[name] = made.step.lower(state, batch).compile().cost_analysis()["flops"]
        moments[name] = sum(x.size for x in jax.tree.leaves(state.opt_state))
    # The backward pass of a layer costs twice its forward pass.
    assert cost["frozen"] < 0.5 * cost["full"]
    assert moments["frozen"] < 0.05 * moments["full"]


def test_a_frozen_encoder_keeps_its_weights_and_statistics():
    made = trainer(FROZEN, "video")
    state, batch = made.init(0), batch_of(made)
    before = numbers(state.params), numbers(state.kept)
    for _ in range(2):
        state, metrics = made.step(state, batch)
    assert np.isfinite(metrics["loss"])
    moved = changed(before[0], state.params)
    assert moved
    assert not any(name.startswith("encoder") for name in moved)
    assert not changed(before[1], state.kept)


def test_statistics_that_stand_still_do_not_drift_in_a_batch_of_parts():
    made = trainer(FROZEN, "video", micro_batches=3)
    state = made.init(0)
    uneven = jax.tree.map(lambda x: x + jnp.linspace(0.1, 0.9, x.size), state.kept)  # a third of 3 x is not always x
    before = numbers(uneven)
    state, _ = made.step(dataclasses.replace(state, kept=uneven), batch_of(made, (12, 9, 7)))
    assert not changed(before, state.kept)


def test_a_run_resumes_within_a_phase_and_at_the_border_of_one(tmp_path):
    made = trainer(Trainable((Group("encoder", from_step=2),)), "audio")
    batch, saved = batch_of(made), Checkpointer(tmp_path, keep=9)
    state, seen = made.init(0), {}
    for step in range(4):
        saved.save(step, state, {})
        saved.wait()
        state, metrics = made.step(state, batch)
        seen[step] = float(metrics["grad_norm"])
    straight = numbers((state.params, state.opt_state))
    for first in (1, 2, 3):
        resumed = read(
            tmp_path,
            first,
            made.init(1),
        )
        for step in range(first, 4):
            resumed, metrics = made.step(resumed, batch)
            assert float(metrics["grad_norm"]) == seen[step]
        for ours, theirs in zip(*map(jax.tree.leaves, ((resumed.params, resumed.opt_state), straight)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    saved.close()


def test_what_is_looked_into_is_what_the_step_computes():
    made = trainer(FROZEN, "video")
    state, batch = made.init(0), batch_of(made)
    norm = float(optax.tree.norm(made.gradient(0)(state, batch)))
    looked = jax.jit(lambda state, batch: made.inspect(made.model(state), state, batch, phase=0))
    loss = float(looked(state, batch).loss)
    _, metrics = made.step(state, batch)
    assert norm == pytest.approx(float(metrics["grad_norm"]), rel=1e-5)
    assert loss == pytest.approx(2 * float(metrics["loss"]), rel=1e-5), "of two clips"


@pytest.mark.parametrize(("step", "phase"), [(0, 0), (1, 0), (2, 2), (4, 2), (5, 5), (9, 5)])
def test_a_phase_begins_with_the_step_after_as_many_as_it_says(step, phase):
    trainable = Trainable((Group("a", from_step=5), Group("b", from_step=2), Group("c", from_step=None)))
    assert trainable.phase_of(step) == phase


def test_layers_begin_to_learn_one_after_another():
    trainable = Trainable((Group("encoder.transformer", from_step=1), Group("encoder", from_step=3)))
    assert trainable.phases == (0, 1, 3)
    made = trainer(trainable, "audio")
    state, batch = made.init(0), batch_of(made)
    moved = []
    for _ in range(4):
        before = numbers(state.params)
        state, _ = made.step(state, batch)
        parts = {".".join(name.split(".")[:2]) for name in changed(before, state.params)}
        moved.append(sorted(part for part in parts if part in ("encoder.frontends", "encoder.transformer")))
    deep, all_ = ["encoder.transformer"], ["encoder.frontends", "encoder.transformer"]
    assert moved == [[], deep, deep, all_]
    assert {start: int(age) for start, age in state.opt_state[1].ages.items()} == {0: 4, 1: 3, 3: 1}


def test_adam_counts_from_when_a_parameter_begins_to_learn():
    late = Trainable((Group("late", from_step=5),))
    params, grads = {"late": jnp.zeros(2), "soon": jnp.zeros(2)}, {"late": jnp.array([1.0, -2.0]), "soon": jnp.ones(2)}
    tx = scale_by_adam(0.9, 0.999, 1e-8, late)
    state = tx.init(params)
    for _ in range(5):
        updates, state = tx.update(grads | {"late": jnp.zeros(2)}, state, phase=0)
        np.testing.assert_array_equal(updates["late"], 0)
    updates, state = tx.update(grads, state, phase=5)
    # A first update of Adam has the size of the rate, whatever the gradient.
    np.testing.assert_allclose(updates["late"], [1, -1], rtol=1e-4)
    np.testing.assert_allclose(updates["soon"], [1, 1], rtol=1e-4)


def test_rates_and_decay_are_of_the_group():
    trainable = Trainable((Group("encoder", rate=0.1), Group("heads", decays=False)))
    params = {"encoder": jnp.ones(2), "heads": jnp.ones(2), "rest": jnp.ones(2)}
    config = OptimizerConfig(peak_lr=1.0, warmup_steps=0, weight_decay=0.5, clip_norm=0.0)
    tx = make_optimizer(config, 10**9, trainable)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["encoder"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["heads"], 0)
    np.testing.assert_allclose(updates["rest"], -0.5, rtol=1e-6)


@pytest.mark.parametrize(("path", "start"), [(("encoder", "transformer"), 2), (("encoder",), None), (("heads",), 0)])
def test_the_first_group_that_fits_counts(path, start):
    trainable = Trainable((Group("encoder.transformer", from_step=2), Group("encoder", from_step=None)))
    assert trainable.group(path).from_step == start


def test_layers_of_a_stack_wait_and_learn_as_parameters_of_their_own_would():
    rates, waits = (0.25, 0.5, 1.0), (4, 2, 0)
    apart = Trainable(
        tuple(
            Group(f"layer{k}", from_step=wait, rate=rate)
            for k, (rate, wait) in enumerate(zip(rates, waits, strict=True))
        )
    )
    stacked = Trainable((Group("layers", layer_rates=rates, layer_waits=waits),))
    start, grads = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    one = nnx.State({f"layer{k}": nnx.Param(jnp.array(start[k])) for k in range(3)})
    other = nnx.State({"layers": nnx.Param(jnp.array(start))})
    of_one, of_other = (make_optimizer(OPTIMIZER, 100, trainable) for trainable in (apart, stacked))
    one_state, other_state = of_one.init(one), of_other.init(other)
    for step in range(6):
        phase, g = apart.phase_of(step), jnp.array(grads * (step + 1))
        learn = [wait <= step for wait in waits]
        given = nnx.State({f"layer{k}": nnx.Param(g[k] * learn[k]) for k in range(3)})
        updates, one_state = of_one.update(given, one_state, one, phase=phase, grad_norm=jnp.ones([]))
        moves = nnx.State({name: nnx.Param(u[...] * learn[int(name[-1])]) for name, u in updates.items()})
        one = optax.apply_updates(one, moves)
        updates, other_state = of_other.update(
            nnx.State({"layers": nnx.Param(g)}), other_state, other, phase=0, grad_norm=jnp.ones([])
        )
        other = optax.apply_updates(other, updates)
        found = np.asarray(other["layers"][...])
        np.testing.assert_allclose(found, np.stack([one[f"layer{k}"][...] for k in range(3)]), rtol=1e-6)
        assert [bool((found[k] != start[k]).all()) for k in range(3)] == learn


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({}, ()),
        ({"freeze_steps": 5}, (Group("encoder", 5),)),
        ({"freeze_steps": 10}, (Group("encoder", None),)),
        ({"lora_rank": 2, "encoder_rate": 3.0}, (Group(r"encoder\..*\.lora_", rate=3.0), Group("encoder", None))),
        (
            {"layer_decay": 0.5},
            (Group("encoder.transformer.layers", layer_rates=(0.125, 0.25, 0.5)), Group("encoder", 0, 0.0625)),
        ),
        (
            {"unfreeze_every": 2, "freeze_steps": 1},
            (Group("encoder.transformer.layers", 1, layer_waits=(4, 2, 0)), Group("encoder", 7)),
        ),
    ],
)
def test_what_of_an_encoder_learns(changes, groups):
    config = FinetuneConfig(tasks=(emotion("a", "b"),), num_steps=10, **changes)
    found = what_learns(config, 3, pretrained=True).groups
    assert [group.paths.replace("\\", "") for group in found] == [group.paths.replace("\\", "") for group in groups]
    assert [dataclasses.replace(group, paths="") for group in found] == [
        dataclasses.replace(group, paths="") for group in groups
    ]
    assert what_learns(config, 3, pretrained=False) == EVERYTHING


def test_under_a_fitted_head_an_untrained_encoder_learns_as_fast_as_a_pretrained_one():
    config = FinetuneConfig(tasks=(emotion("a", "b"),), head="frozen_linear", encoder_rate=20, layer_decay=0.5)
    (group, *_) = what_learns(config, 3, pretrained=False).groups
    assert group == Group("encoder", rate=20)
