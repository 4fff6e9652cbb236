"""The one training step: global means, one compilation a shape, learning, freezing, evaluation."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import FinetuneConfig, MaskingConfig, OptimizerConfig, ParallelConfig, emotion
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.objectives.supervised import Supervised
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer
from mmpretrain.train.trainable import Group, Trainable
from tests.tiny import clip_keys, initial, random_batch, rows, tiny_model, tiny_round, with_inputs

SOUND = tiny_model("audio")
OPTIMIZER = OptimizerConfig(peak_lr=1e-2, warmup_steps=0, clip_norm=1.0)


@functools.cache
def mesh():
    return make_mesh(ParallelConfig())


@functools.cache
def pretraining() -> Trainer:
    round_ = tiny_round(masking=MaskingConfig(kind="feature", span_frames=3))
    return Trainer(MaskedPrediction(SOUND, round_), make_optimizer(OPTIMIZER, 1_000), mesh())


def classification(*, freeze_steps=0, **changes) -> Trainer:
    finetune = FinetuneConfig(tasks=(emotion("neutral", "happy", "sad"),), **changes)
    trainable = Trainable((Group("encoder", from_step=freeze_steps),))
    return Trainer(Supervised(SOUND, finetune), make_optimizer(OPTIMIZER, 1_000, trainable), mesh(), trainable)


def test_gradient_is_the_weighted_mean_over_the_parts_of_a_batch():
    # Parts with different numbers of masked frames, where a mean of means would be another number.
    objective = MaskedPrediction(SOUND, tiny_round(feature_penalty=0.0, masking=MaskingConfig("feature")))
    graphdef, params, stats = initial(objective.make_model)
    batch = random_batch((12, 12, 5, 3), model=SOUND)
    draws = objective.draw(clip_keys(batch), batch, step=0, train=True)

    @functools.partial(jax.jit, static_argnums=1)
    def gradient_sum(params, part):
        def loss(params):
            model = nnx.merge(graphdef, params, stats)
            sums = objective.loss(model, rows(batch, slice(*part)), rows(draws, slice(*part)), None, train=False)
            return sums.loss, sums.weight

        return jax.grad(loss, has_aux=True)(params)

    whole, weight = gradient_sum(params, (0, 4))
    (first, first_weight), (second, second_weight) = gradient_sum(params, (0, 2)), gradient_sum(params, (2, 4))
    assert weight == first_weight + second_weight
    assert first_weight != second_weight
    for sum_all, a, b in zip(*map(jax.tree.leaves, (whole, first, second)), strict=True):
        np.testing.assert_allclose(sum_all / weight, (a + b) / weight, rtol=1e-4, atol=1e-6)


def test_step_compiles_once_a_shape():
    trainer = pretraining()
    state = trainer.init(0)
    before = trainer.step._cache_size()
    for seed in range(3):
        state, _ = trainer.step(state, shard_batch(random_batch((14, 9), model=SOUND, seed=seed), trainer.mesh))
    assert trainer.step._cache_size() - before == 1
    assert int(state.step) == 3


def test_state_has_no_weak_types():
    # They become strong in the first step, which then compiles again.
    state = pretraining().shapes
    assert not [path for path, leaf in jax.tree_util.tree_leaves_with_path(state) if leaf.weak_type]


def test_same_seed_same_state_and_another_seed_another():
    trainer = pretraining()
    one, same, other = (trainer.init(seed) for seed in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (one, same)), strict=True))
    assert (jax.tree.leaves(one.params)[0] != jax.tree.leaves(other.params)[0]).any()


def test_steps_are_reproducible_and_differ_in_their_masks():
    trainer, batch = pretraining(), random_batch((12, 9), model=SOUND)

    def losses():
        state, seen = trainer.init(0), []
        for _ in range(3):
            state, metrics = trainer.step(state, shard_batch(batch, trainer.mesh))
            seen.append({name: float(value) for name, value in metrics.items()})
        return seen

    seen = losses()
    assert seen == losses()
    assert len({step["masked_share"] for step in seen} | {step["loss"] for step in seen}) > 3


def test_loss_falls_when_one_batch_is_learned_by_heart():
    trainer = pretraining()
    state, batch = trainer.init(0), shard_batch(random_batch((12, 9), model=SOUND), trainer.mesh)
    before = trainer.evaluate(state, batch)
    for _ in range(150):
        state, metrics = trainer.step(state, batch)
    after = trainer.evaluate(state, batch)
    assert after.loss / after.weight < 0.6 * before.loss / before.weight
    assert np.isfinite(metrics["grad_norm"])


def test_evaluation_draws_the_same_masks_at_every_step():
    trainer = pretraining()
    batch = shard_batch(random_batch((12, 9), model=SOUND), trainer.mesh)
    state = trainer.init(0)
    first = jax.device_get(trainer.evaluate(state, batch))
    later = jax.device_get(trainer.evaluate(jax.tree.map(lambda x: x, state), batch))
    moved, _ = trainer.step(state, batch)
    assert first == later
    assert trainer.evaluate(moved, batch).weight == first.weight


def test_metrics_are_means_and_the_norms_are_of_what_they_say():
    trainer = pretraining()
    state, batch = trainer.init(0), shard_batch(random_batch((12, 9), model=SOUND), trainer.mesh)
    _, metrics = trainer.step(state, batch)
    assert set(metrics) >= {"loss", "masked_loss", "masked_accuracy", "masked_share", "grad_norm", "param_norm"}
    assert 0 <= metrics["masked_accuracy"] <= 1
    assert 0 < metrics["masked_share"] <= 1
    np.testing.assert_allclose(metrics["loss"], metrics["masked_loss"] + 10 * metrics["feature_penalty"], rtol=1e-5)


def test_a_batch_without_targets_moves_nothing_by_its_loss():
    batch = random_batch((12, 9), model=SOUND)
    trainer = pretraining()
    state = trainer.init(0)
    _, metrics = trainer.step(state, shard_batch(batch._replace(targets_BTS=np.full((2, 12, 1), -1, np.int32)), mesh()))
    assert metrics["loss"] == metrics["grad_norm"] == 0


def test_frozen_encoder_is_held_exactly_and_then_let_go():
    trainer = classification(freeze_steps=2, dropout=0.0)
    state, batch = trainer.init(0), shard_batch(random_batch((12, 9), model=SOUND), trainer.mesh)
    start = jax.tree.map(np.array, state.params)  # copies: the step reuses the memory of its input
    moved = {}
    for step in (1, 2, 3):
        state, _ = trainer.step(state, batch)
        now = jax.tree.map(np.array, state.params)
        moved[step] = {
            name: sum(
                bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (now[name], start[name])), strict=True)
            )
            for name in start
        }
    assert moved[1]["encoder"] == moved[2]["encoder"] == 0
    assert moved[1]["heads"] >= 2
    assert moved[3]["encoder"] > 10


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_is_for_training_and_unlabelled_clips_never_count(smoothing):
    finetune = FinetuneConfig(tasks=(emotion("neutral", "happy", "sad"),), label_smoothing=smoothing, dropout=0.0)
    objective = Supervised(SOUND, finetune)
    graphdef, params, stats = initial(objective.make_model)
    batch = random_batch((12, 9, 7), model=SOUND, emotions=[2, -1, 0])

    @jax.jit
    def run(params):
        model, key = nnx.merge(graphdef, params, stats), jax.random.key(0)
        draws = objective.draw(clip_keys(batch), batch, step=0, train=True)
        train, evaluation = (objective.loss(model, batch, draws, k, train=k is not None) for k in (key, None))
        return train, evaluation, objective.outputs(model, batch)["emotion"]

    train, evaluation, logits_BC = jax.device_get(run(params))
    log_probs = logits_BC - np.log(np.exp(logits_BC).sum(-1, keepdims=True))
    nll = -log_probs[0, 2] - log_probs[2, 0]
    uniform = -log_probs[[0, 2]].mean(-1).sum()
    np.testing.assert_allclose(train.loss, (1 - smoothing) * nll + smoothing * uniform, rtol=1e-4)
    np.testing.assert_allclose(evaluation.loss, nll, rtol=1e-4)
    for sums in (train, evaluation):
        assert sums.weight == 2
        np.testing.assert_allclose(sums.metrics["emotion/nll"], (nll, 2), rtol=1e-4)
        np.testing.assert_allclose(sums.metrics["emotion/accuracy"], ((logits_BC.argmax(-1) == [2, -1, 0]).sum(), 2))


def test_augmentation_masks_are_for_training_only_and_leave_padding():
    masking = MaskingConfig(kind="input", audio_prob=0.5, audio_span_frames=3)
    objective = Supervised(SOUND, FinetuneConfig(tasks=(emotion("neutral", "sad"),), masking=masking, dropout=0.0))
    graphdef, params, stats = initial(objective.make_model)
    batch = random_batch((12, 9), model=SOUND, num_classes=2)
    draws = objective.draw(clip_keys(batch), batch, step=0, train=True)
    assert not (np.asarray(draws.audio_BT) & ~batch.valid_BT).any()

    @jax.jit
    def run(params, batch, key):
        return objective.loss(nnx.merge(graphdef, params, stats), batch, draws, key, train=True).loss

    hidden = with_inputs(batch, audio=np.where(np.asarray(draws.audio_BT)[..., None], 7.0, batch.inputs["audio"]))
    key = jax.random.key(1)
    assert run(params, hidden, key) == run(params, batch, key)

    @jax.jit
    def evaluate(params, batch):
        return objective.loss(nnx.merge(graphdef, params, stats), batch, draws, None, train=False).loss

    assert evaluate(params, hidden) != evaluate(params, batch)


def test_clip_logits_do_not_depend_on_padding_or_neighbours():
    objective = Supervised(SOUND, FinetuneConfig(tasks=(emotion("neutral", "sad"),)))
    graphdef, params, stats = initial(objective.make_model)
    batch = random_batch((12, 7), model=SOUND)
    run = jax.jit(lambda params, batch: objective.outputs(nnx.merge(graphdef, params, stats), batch)["emotion"])
    alone = rows(batch, [1])
    cut = with_inputs(alone, audio=alone.inputs["audio"][:, :7])._replace(valid_BT=alone.valid_BT[:, :7])
    np.testing.assert_allclose(run(params, batch)[1], run(params, cut)[0], atol=2e-5)
