"""What is drawn on the device: no two draws share a key, and validation draws for a clip alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.config import FinetuneConfig, MaskingConfig, OptimizerConfig, ParallelConfig, emotion
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.objectives.supervised import Supervised
from mmpretrain.parallel.mesh import make_mesh
from mmpretrain.randomness import seed_key
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer, TrainState, draw
from mmpretrain.train.validation import validate
from tests.tiny import initial, padded, random_batch, rows, tiny_model, tiny_round

BOTH = ("audio", "video")
# So rarely is a layer dropped that none is here: one that is draws nothing else.
RATES = dict(dropout=0.2, attention_dropout=0.2, activation_dropout=0.2, input_dropout=0.2, layerdrop=1e-9)
INPUT = MaskingConfig("input", audio_span_frames=3, video_span_frames=2)


def pretraining(*modalities: str, num_layers=1, masking=INPUT, **changes) -> Trainer:
    """Of sound: what is drawn for a clip is the same for any model, and no ResNet compiles."""
    model = tiny_model(*modalities, num_layers=num_layers, **RATES)
    return trainer_of(MaskedPrediction(model, tiny_round(masking=masking, modality_dropout=0.5, **changes)))


def finetuning(num_layers: int) -> Trainer:
    model = tiny_model("audio", num_layers=num_layers, **RATES)
    tasks = (emotion("neutral", "happy", "sad"), emotion("neutral", "happy", "sad", name="again"))
    return trainer_of(Supervised(model, FinetuneConfig(tasks=tasks, masking=INPUT)))


def trainer_of(objective) -> Trainer:
    tx = make_optimizer(OptimizerConfig(peak_lr=1e-2, warmup_steps=0), 10)
    return Trainer(objective, tx, make_mesh(ParallelConfig()))


def state_of(trainer: Trainer, seed=7) -> TrainState:
    _, params, kept = initial(trainer.objective.make_model)
    key = jax.random.key_data(seed_key(seed))
    return TrainState(jnp.zeros([], jnp.int32), params, kept, None, key, None)


@pytest.fixture
def drawn(monkeypatch):
    """Every key that something is drawn from, in the order of the draws."""
    keys = []

    def record(draw):
        @functools.wraps(draw)
        def recorded(key, *args, **kwargs):
            jax.debug.callback(lambda data: keys.append(tuple(np.asarray(data).tolist())), jax.random.key_data(key))
            return draw(key, *args, **kwargs)

        return recorded

    for name in ("uniform", "bernoulli", "normal", "randint"):
        monkeypatch.setattr(jax.random, name, record(getattr(jax.random, name)))
    return keys


def step_of(trainer: Trainer, batch):
    """A function of a state that draws as a step does."""
    return jax.jit(lambda state: trainer.inspect(trainer.model(state), state, batch, phase=0).loss)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_no_two_draws_of_a_run_share_a_key(drawn, num_layers):
    trainer, B = pretraining(num_layers=num_layers), 3
    batch = random_batch((12, 9, 7), model=trainer.objective.model)
    state, step = state_of(trainer), step_of(trainer, batch)
    drawn.clear()
    for _ in range(2):
        step(state)
        state.step += 1
    # Of each clip: two masks of two draws, where pictures come from, two of modality dropout. Of the batch: dropout of
    # the input and of the transformer's, and in each layer four of dropout and one of layerdrop.
    jax.effects_barrier()
    assert len(drawn) == 2 * (7 * B + 2 + 5 * num_layers)
    draw(trainer, state, batch, train=False)
    jax.effects_barrier()
    assert len(drawn) == 2 * (7 * B + 2 + 5 * num_layers) + 5 * B
    assert len(set(drawn)) == len(drawn)


def test_no_two_draws_of_fine_tuning_share_a_key(drawn):
    trainer = finetuning(num_layers=2)
    batch = random_batch((12, 9), model=trainer.objective.model)
    batch = batch._replace(labels=dict.fromkeys(("emotion", "again"), batch.labels["emotion"]))
    state = state_of(trainer)
    drawn.clear()
    step_of(trainer, batch)(state)
    jax.effects_barrier()
    assert len(drawn) == 4 * 2 + 2 + 5 * 2 + 2  # a draw for each head
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("masking", [INPUT, MaskingConfig("feature", span_frames=3)])
def test_validation_draws_for_a_clip_and_depends_on_no_order_batch_or_padding(masking):
    trainer = pretraining(*BOTH, masking=masking)
    batch = random_batch((12, 9, 12, 5), model=trainer.objective.model)
    state = TrainState(jnp.zeros([], jnp.int32), None, None, None, jax.random.key_data(seed_key(7)), None)
    whole, _ = jax.device_get(draw(trainer, state, batch, train=False))
    state.step += 3
    for cut, extra in (([2, 0], 0), ([3, 2, 1, 0], 7)):
        part, _ = jax.device_get(draw(trainer, state, padded(rows(batch, np.array(cut)), extra), train=False))
        for name in ("audio_BT", "video_BT", "source_BT"):
            np.testing.assert_array_equal(getattr(part, name)[:, :12], getattr(whole, name)[cut], err_msg=name)
        assert all(part.use[name].all() for name in BOTH), "modality dropout is of training alone"
    assert (whole.audio_BT[0] != whole.audio_BT[2]).any(), "two clips of one length have masks of their own"
    trained, _ = draw(trainer, state, batch, train=True)
    assert not all(np.asarray(trained.use[name]).all() for name in BOTH)


def test_validation_figures_depend_on_no_order_or_batching():
    trainer = pretraining()
    batch, state = random_batch((12, 9, 12, 5), model=trainer.objective.model), trainer.init(7)
    one = validate(trainer, state, [batch])
    for parts in ([[0, 1], [2, 3]], [[3, 1], [2, 0]], [[2], [0, 3, 1]]):
        other = validate(trainer, state, [rows(batch, np.array(part)) for part in parts])
        assert one["validation/masked_share"] == other["validation/masked_share"]
        for name, value in one.items():
            assert other[name] == pytest.approx(value, rel=1e-5), name
