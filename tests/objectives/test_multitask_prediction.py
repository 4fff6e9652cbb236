"""Masked prediction with tasks beside: what each adds, what is reversed, and parts and meshes as the whole."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import MaskingConfig, OptimizerConfig, ParallelConfig, TaskConfig, emotion
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.objectives.multitask_prediction import MultitaskPrediction
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.checkpoint import Checkpointer
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer
from tests.tiny import clip_keys, initial, random_batch, tiny_model, tiny_round

ROOT = Path(__file__).parents[2]
TOLD = emotion("a", "b", "c", weight=0.5)
HIDDEN = TaskConfig("speaker", classes=("x", "y"), reversal=0.3, weight=2.0)
NEAR = TaskConfig("likeness", "emotion", kind="embedding", classes=("a", "b", "c"), embedding_dim=4)
EMOTIONS, SPEAKERS = [0, 1, -1, 1, 0, 2, -1, 2], [0, 1, 1, 0, -1, 1, 0, 1]
LENGTHS = (9, 3, 9, 5, 9, 9, 2, 7)


def objective_of(*tasks) -> MultitaskPrediction:
    masking, model = MaskingConfig("feature", span_frames=3), tiny_model(num_layers=1)
    return MultitaskPrediction(model, tiny_round(objective="multitask_prediction", tasks=tasks, masking=masking))


def labelled_batch():
    batch = random_batch(LENGTHS, model=tiny_model(), emotions=EMOTIONS)
    emotions, speakers = batch.labels["emotion"], np.array(SPEAKERS, np.int32)
    return batch._replace(labels={"emotion": emotions, "likeness": emotions, "speaker": speakers})


def gradient_of(objective, batch, draws):
    """A function of how much is reversed -> (sums, the gradient of each parameter), and the parameters."""
    graphdef, params, stats = initial(objective.make_model)

    def loss(params, ramp):
        turned = draws if ramp is None else draws._replace(ramp_B=jnp.full(len(LENGTHS), ramp))
        sums = objective.loss(nnx.merge(graphdef, params, stats), batch, turned, None, train=True)
        return sums.loss, sums

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def at(ramp):
        (_, sums), grads = run(params, ramp)
        return sums, {".".join(map(str, path)): np.asarray(g[...]) for path, g in nnx.to_flat_state(grads)}

    return at, params


def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    """Masks, dropout's keys, heads and how far gradients are reversed are all of the step."""
    optimizer, mesh = make_optimizer(OptimizerConfig(peak_lr=1e-2, warmup_steps=0), 100), make_mesh(ParallelConfig())
    trainer = Trainer(objective_of(TOLD, HIDDEN, NEAR), optimizer, mesh)
    batch = shard_batch(labelled_batch(), mesh)

    def run(state, steps):
        told = []
        for _ in range(steps):
            state, metrics = trainer.step(state, batch)
            told.append(jax.device_get(metrics))
        return state, told

    straight, seen = run(trainer.init(0), 4)
    state, _ = run(trainer.init(0), 2)
    saved = Checkpointer(tmp_path / "checkpoints", keep=1)
    saved.save(2, state, {})
    saved.wait()
    state, _ = saved.restore(trainer.init(1))
    saved.close()
    state, last = run(state, 2)
    assert last == seen[2:]
    assert last[0]["reversal_ramp"] < last[1]["reversal_ramp"]
    leaves = (jax.tree.leaves((each.params, each.kept, each.opt_state)) for each in (state, straight))
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_term_adds_its_mean_and_a_reversed_one_turns_the_encoder_round():
    batch, both = labelled_batch(), objective_of(TOLD, HIDDEN)
    draws = both.draw(clip_keys(batch), batch, step=jnp.int32(20), train=True)
    ramp = 2 / (1 + np.exp(-10 * 20 / 100)) - 1
    assert np.asarray(draws.ramp_B) == pytest.approx([ramp] * len(LENGTHS))
    assert not np.any(both.draw(clip_keys(batch), batch, step=jnp.int32(0), train=True).ramp_B)
    assert both.draw(clip_keys(batch), batch, step=jnp.int32(20), train=False).ramp_B is None

    at, params = gradient_of(both, batch, draws)
    sums, found = at(ramp)
    metrics = {name: float(value) for name, value in both.summarize(sums).items()}
    assert metrics["reversal_ramp"] == pytest.approx(ramp)
    masked = MaskedPrediction(both.model, both.round)
    graphdef, _, stats = initial(masked.make_model)
    shared = nnx.from_flat_state([(p, v) for p, v in nnx.to_flat_state(params) if p[0] != "heads"])
    alone = jax.jit(lambda: masked.loss(nnx.merge(graphdef, shared, stats), batch, draws.masks, None, train=True))()
    plain = {name: float(value) for name, value in masked.summarize(alone).items()}
    added = 0.5 * metrics["emotion/loss"] + 2 * metrics["speaker/loss"]
    assert metrics["loss"] == pytest.approx(plain["loss"] + added, rel=1e-5)
    assert float(sums.loss / sums.weight) == pytest.approx(metrics["loss"], rel=1e-5), "what is differentiated"
    assert metrics["masked_loss"] == pytest.approx(plain["masked_loss"], rel=1e-5)

    still, told = at(0.0)[1], TaskConfig("speaker", classes=("x", "y"), weight=2.0)
    forward = gradient_of(objective_of(TOLD, told), batch, draws._replace(ramp_B=None))[0](None)[1]
    moved = 0
    for name, g in found.items():
        if name.startswith("heads"):
            np.testing.assert_allclose(g, forward[name], rtol=1e-4, atol=1e-5, err_msg=name)
            continue
        of_speaker = forward[name] - still[name]  # what the encoder would learn of the speaker
        np.testing.assert_allclose(g - still[name], -0.3 * ramp * of_speaker, rtol=1e-3, atol=1e-3, err_msg=name)
        moved += np.abs(of_speaker).max() > 0.1
    assert moved > 5


def steps(objective, num_devices, micro_batches, num_steps: int = 2):
    """Parameters and metrics after some steps on so many devices, each in so many parts."""
    mesh = make_mesh(ParallelConfig(num_devices, 1, 1), jax.devices()[:num_devices])
    tx = make_optimizer(OptimizerConfig(peak_lr=0.1, eps=1.0, warmup_steps=0), 100)  # linear in the gradient
    trainer = Trainer(objective, tx, mesh, micro_batches=micro_batches)
    state, seen = trainer.init(0), []
    start = jax.device_get(jax.tree.leaves(state.params))
    for _ in range(num_steps):
        state, metrics = trainer.step(state, shard_batch(labelled_batch(), mesh))
        seen.append({k: float(v) for k, v in metrics.items()})
    params = jax.device_get(jax.tree.leaves(state.params))
    assert sum(np.abs(a - b).max() > 1e-4 for a, b in zip(params, start, strict=True)) > len(params) / 2
    return params, seen


def assert_same(ours, theirs) -> None:
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_two_parts_of_a_batch_make_the_step_of_the_whole():
    objective = objective_of(TOLD, HIDDEN)
    assert_same(steps(objective, 1, 2), steps(objective, 1, 1))


def on_two_devices() -> None:
    """In a process of its own: an embedding, whose clips are compared across devices, and a reversed task."""
    jax.config.update("jax_num_cpu_devices", 2)
    objective = objective_of(NEAR, HIDDEN)
    one, two = (steps(objective, devices, 1) for devices in (1, 2))
    assert_same(two, one)
    assert one[1][1]["likeness/loss"] < one[1][0]["likeness/loss"]


@pytest.mark.slow
def test_two_devices_make_the_step_of_one():
    code = "from tests.objectives.test_multitask_prediction import on_two_devices; on_two_devices()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
