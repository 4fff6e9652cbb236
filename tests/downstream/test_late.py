"""The fitted parts of late fusion: of validation clips alone, and close to the best there is."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import emotion
from mmpretrain.downstream.late import fit_late
from mmpretrain.evaluation.linear import regression
from mmpretrain.models.late import LateHead, fused, log_probs_of
from mmpretrain.models.streams import Beside
from mmpretrain.objectives.task_losses import TASK_LOSSES
from tests.tiny import initial, tiny_model

RANDOM = np.random.default_rng(0)
TASK, N = emotion("a", "b", "c"), 90
LABELS = RANDOM.integers(0, 3, 2 * N)
VALIDATION = np.arange(N)
# The first modality tells half of the clips, the second is noise, the third tells most but is often away.
TOLD = np.stack([2 * np.eye(3)[LABELS[:N]] + RANDOM.normal(size=(N, 3)), 3 * RANDOM.normal(size=(N, 3)),
                 4 * np.eye(3)[LABELS[:N]] + RANDOM.normal(size=(N, 3))], axis=1).astype(np.float32)  # fmt: skip
THERE = np.stack([np.ones(N), np.ones(N), RANDOM.random(N) < 0.5], axis=1) > 0


def fit(rule, labels):
    def make(rngs):
        each = lambda config: TASK_LOSSES["class"].make_head(config, TASK, rngs)  # noqa: E731
        return LateHead(
            each, tiny_model(), "class", 3, (Beside("text", 5), Beside("hands", 4, of_frames=True)), rule, rngs=rngs
        )

    head = nnx.merge(*initial(make))
    finetuning = SimpleNamespace(
        config=SimpleNamespace(fusion=f"late_{rule}", tasks=(TASK,)), labels={"emotion": labels}
    )
    outputs = {"emotion/members": TOLD, "emotion/there": THERE}
    told = fit_late(finetuning, SimpleNamespace(heads={"emotion": head}), outputs, VALIDATION)
    return {name: np.asarray(x[...]) for name, x in head.fitted.items()}, told


@pytest.mark.parametrize("rule", ["weights", "stacked"])
def test_what_is_fitted_is_of_validation_clips_alone(rule):
    fitted, told = fit(rule, LABELS)
    moved = LABELS.copy()
    moved[N:] = 2 - moved[N:]
    again, _ = fit(rule, moved)
    assert all(np.array_equal(fitted[name], again[name]) for name in fitted), "test labels have no say"
    moved[:N] = (moved[:N] + 1) % 3
    assert not all(np.array_equal(fitted[name], x) for name, x in fit(rule, moved)[0].items()), "validation labels have"
    if rule == "stacked":
        x = np.asarray(log_probs_of(jnp.asarray(TOLD), jnp.asarray(THERE)))
        said = fused(TOLD, THERE, "class", rule, fitted)
        wanted = regression(x.astype(np.float64), LABELS[:N], 1.0).predict_proba(x)
        np.testing.assert_allclose(jax.nn.softmax(said), wanted, atol=1e-4)
        return
    weights = fitted["weights"]
    assert weights.sum() == pytest.approx(1)
    assert list(told["late_weights"]["emotion"]) == [*tiny_model().modalities, "text", "hands"]

    def loss(weights):
        log_p = np.asarray(fused(TOLD, THERE, "class", rule, {"weights": jnp.asarray(weights, jnp.float32)}))
        return -log_p[np.arange(N), LABELS[:N]].mean()

    grid = [(a, b, 1 - a - b) for a in np.linspace(0.01, 0.9, 9) for b in np.linspace(0.01, 0.98 - a, 9)]
    assert loss(weights) <= min(map(loss, grid)) + 1e-4
    assert weights[1] < 0.1 < weights[2], "noise counts little"
