"""The network that the benchmark compares with is ours: the same loss, gradients and features from the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.contestants import RUN_ONCE, arrays_of, drawn, make_trainer
from mmpretrain.config import MaskingConfig
from mmpretrain.train.guard import Guard
from mmpretrain.train.step import TrainState, mean_gradient
from tests.tiny import initial, random_batch, tiny_model, tiny_round, tiny_run

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("masking", [MaskingConfig(kind="feature", span_frames=4), MaskingConfig(kind="input")])
def test_loss_gradients_and_features_are_those_of_our_network(masking):
    from benchmarks.torch_baseline import Pretraining, as_torch

    model = tiny_model("audio", "video", feature_grad_scale=0.5)
    round_ = tiny_round(masking=masking, unmasked_weight=0.5, modality_dropout=0.9, audio_dropout=1.0)
    trainer = make_trainer(tiny_run(model=model, rounds=(round_,)), 1)
    _, params, kept = initial(trainer.objective.make_model)
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(jnp.zeros([], jnp.int32), params, kept, None, key, Guard.fresh())
    batch = random_batch((12, 12, 12), model=model)  # without padding

    theirs = Pretraining(model, round_)
    missing, unexpected = theirs.load_state_dict(as_torch(arrays_of(params, kept)), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    given = {name: torch.tensor(array) for name, array in drawn(trainer, state, batch).items()}
    with torch.no_grad():
        features_BTD = theirs.eval().features(given).numpy()
    loss = theirs.train()(given)
    loss.backward()

    def ours(state, batch):
        return trainer.model(state).encoder(batch), *mean_gradient(trainer, state, batch, phase=0)

    features, gradient, sums, _ = jax.jit(ours).lower(state, batch).compile(compiler_options=RUN_ONCE)(state, batch)
    np.testing.assert_allclose(features, features_BTD, rtol=1e-3, atol=1e-3)
    assert loss.item() == pytest.approx(float(trainer.objective.summarize(sums)["loss"]), rel=1e-4)
    expected = as_torch(arrays_of(gradient))
    largest = max(float(g.norm()) for g in expected.values())
    for name, parameter in theirs.named_parameters():
        error, size = (float(x.norm()) for x in (expected[name] - parameter.grad, parameter.grad))
        assert error < 1e-3 * max(size, 1e-3 * largest), (name, error, size)
