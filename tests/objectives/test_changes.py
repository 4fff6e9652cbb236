"""Mixup: inputs and losses of two clips by the same share, at values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import FinetuneConfig, emotion
from mmpretrain.objectives.supervised import Changes, Supervised
from tests.tiny import clip_keys, initial, random_batch, tiny_model, with_inputs, with_present


def test_mixed_clips_are_shares_of_two_and_learn_both_labels():
    task = emotion("a", "b", "c")
    mixing, plain = (
        Supervised(tiny_model(), FinetuneConfig(tasks=(task,), dropout=0.0, mixup=mixup)) for mixup in (0.4, 0.0)
    )
    model = nnx.merge(*initial(plain.make_model))
    batch = random_batch((9, 9, 9, 6), model=plain.model, emotions=(0, 2, -1, 1))
    none, own = jnp.zeros((4, 9), bool), np.array([0.7, 0.9, 0.6, 0.8], np.float32)
    run = jax.jit(lambda batch, own: mixing.loss(model, batch, Changes(none, none, own), None, train=True))

    def mixed(x):
        share = own[:, None, None]
        other = np.where(np.roll(batch.valid_BT, 1, 0)[..., None], np.roll(x, 1, 0), 0)  # what is behind a clip is 0
        return share * x + (1 - share) * other

    clean = np.where(batch.valid_BT[..., None], batch.inputs["audio"], 0)
    given = with_inputs(batch, audio=mixed(clean))
    logits = jax.jit(plain.outputs)(model, given)["emotion"]
    log_p = np.asarray(jax.nn.log_softmax(logits))
    # The clip before the first is the last; that before the last has no label, so that its own is learned alone.
    expected = -(0.7 * log_p[0, 0] + 0.3 * log_p[0, 1]) - (0.9 * log_p[1, 2] + 0.1 * log_p[1, 0]) - log_p[3, 1]
    found = run(with_inputs(batch, audio=clean), own)
    assert float(found.loss) == pytest.approx(expected, rel=1e-4)
    assert float(found.weight) == 3
    # A clip behind one without sound is not mixed in it; here only labels are then.
    alone = run(with_present(with_inputs(batch, audio=clean), audio=(1, 1, 1, 0)), own)
    assert float(alone.loss) != pytest.approx(expected, rel=1e-4)


def test_shares_are_of_the_clip_and_at_least_a_half():
    objective = Supervised(tiny_model(), FinetuneConfig(tasks=(emotion("a", "b", "c"),), mixup=0.4))
    batch = random_batch((5,) * 64, model=objective.model)
    batch = with_present(batch, audio=np.arange(64) != 7)
    own = np.asarray(objective.draw(clip_keys(batch), batch, step=0, train=True).own_B)
    assert own[7] == own[8] == 1, "without sound, as a row that only fills the batch, and behind it"
    assert own.min() >= 0.5
    assert 0.7 < own.mean() < 0.95
    assert (np.asarray(objective.draw(clip_keys(batch), batch, step=0, train=False).own_B) == 1).all()


def test_labels_are_mixed_with_those_of_a_clip_that_is_mixed_in():
    finetune = FinetuneConfig(tasks=(emotion("a", "b", "c"),), mixup=0.4, modality_dropout=0.5)
    objective = Supervised(tiny_model("audio", "video"), finetune)
    batch = random_batch((3,) * 64, model=objective.model)
    changes = objective.draw(clip_keys(batch), batch, step=0, train=True)
    left = [np.asarray(of_each) for of_each in changes.left.values()]
    mixed = np.any([here & np.roll(here, 1) for here in left], axis=0)
    assert 0.4 < mixed.mean() < 0.9, "of sound alone behind a picture alone there is nothing to mix"
    assert (np.asarray(changes.own_B)[~mixed] == 1).all()
    assert (np.asarray(changes.own_B)[mixed] < 1).mean() > 0.9


def test_a_reversed_task_teaches_its_head_and_the_encoder_the_contrary():
    told, hidden = emotion("a", "b", "c"), emotion("a", "b", "c", reversal=2.0)
    plain, reversing = (
        Supervised(tiny_model(), FinetuneConfig(tasks=(task,), dropout=0.0, num_steps=100)) for task in (told, hidden)
    )
    graphdef, params, stats = initial(plain.make_model)
    batch = random_batch(model=plain.model)
    draws = reversing.draw(clip_keys(batch), batch, step=jnp.int32(20), train=True)
    ramp = 2 / (1 + np.exp(-10 * 20 / 100)) - 1
    assert np.asarray(draws.ramp_B) == pytest.approx([ramp] * 2)
    assert reversing.draw(clip_keys(batch), batch, step=jnp.int32(0), train=True).ramp_B[0] == 0

    def gradient(objective, draws):
        def loss(params):
            return objective.loss(nnx.merge(graphdef, params, stats), batch, draws, None, train=True).loss

        value, grads = jax.jit(jax.value_and_grad(loss))(params)
        return float(value), {".".join(map(str, path)): np.asarray(g[...]) for path, g in nnx.to_flat_state(grads)}

    usual, turned = gradient(plain, draws._replace(ramp_B=None)), gradient(reversing, draws)
    assert turned[0] == usual[0]
    for name, g in usual[1].items():
        factor = 1 if name.startswith("heads") else -2 * ramp
        np.testing.assert_allclose(turned[1][name], factor * g, rtol=1e-4, atol=1e-6, err_msg=name)
