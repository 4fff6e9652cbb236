"""Late fusion against NumPy: the rules, what is not there, and each modality's own classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import LATE_FUSIONS, TaskConfig
from mmpretrain.models.late import LateHead, fused
from mmpretrain.models.streams import Beside, Heard, stream_of
from mmpretrain.objectives.task_losses import TASK_LOSSES
from tests.tiny import initial, tiny_model

RANDOM = np.random.default_rng(0)
B, M, C = 6, 3, 4
SAID = RANDOM.normal(size=(B, M, C)).astype(np.float32) * 2
THERE = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]], bool)
WEIGHTS = np.array([0.5, 0.1, 0.4])
RULES = [name.removeprefix("late_") for name in LATE_FUSIONS[:4]]


def by_hand(p_MC, weights_M, rule):
    """Of probabilities of the modalities that there are."""
    p_C = {
        "mean": lambda: p_MC.mean(0), "max": lambda: p_MC.max(0), "product": lambda: p_MC.prod(0),
        "weights": lambda: (weights_M[:, None] / weights_M.sum() * p_MC).sum(0),
    }[rule]()  # fmt: skip
    return p_C / p_C.sum()


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_those_of_probabilities_over_what_is_there(rule):
    fitted = {"weights": jnp.asarray(WEIGHTS, jnp.float32)} if rule == "weights" else {}
    said = np.asarray(fused(SAID, THERE, "class", rule, fitted))
    odds = np.asarray(fused(SAID, THERE, "binary", rule, fitted))
    yes = 1 / (1 + np.exp(-SAID))
    for b in range(B - 1):
        there = THERE[b]
        np.testing.assert_allclose(softmax(said[b]), by_hand(softmax(SAID[b, there]), WEIGHTS[there], rule), atol=1e-6)
        for k in range(C):
            both = np.stack([1 - yes[b, there, k], yes[b, there, k]], axis=1)
            p_2 = by_hand(both, WEIGHTS[there], rule)
            assert odds[b, k] == pytest.approx(np.log(p_2[1] / p_2[0]), abs=1e-4)
    for b, alone in ((3, 0), (4, 2)):
        np.testing.assert_allclose(
            softmax(said[b]), softmax(SAID[b, alone]), atol=1e-6, err_msg="the one that is there"
        )
        np.testing.assert_allclose(odds[b], SAID[b, alone], atol=1e-4)
    assert not odds[B - 1].any()
    assert np.ptp(said[B - 1]) == 0, "of nothing all classes are equally likely"
    if rule in ("mean", "weights"):
        numbers = np.asarray(fused(SAID[..., :1], THERE, "value", rule, fitted))[:, 0]
        share = (WEIGHTS if rule == "weights" else np.ones(M)) * THERE
        np.testing.assert_allclose(
            numbers[:5], ((share * SAID[..., 0]).sum(1) / share.sum(1).clip(1e-9))[:5], atol=1e-5
        )


@pytest.mark.parametrize("kind", ["class", "ordinal"])
def test_every_modality_has_a_head_that_hears_it_alone(kind):
    task = TaskConfig("task", kind=kind, classes=("a", "b", "c"), pooling="mean")
    K = 2 if kind == "ordinal" else 3

    def make(rngs):
        each = lambda config: TASK_LOSSES[kind].make_head(config, task, rngs)  # noqa: E731
        return LateHead(
            each, tiny_model(), kind, K, (Beside("text", 5),), "stacked" if kind == "class" else "mean", rngs=rngs
        )

    head = nnx.merge(*initial(make))
    layers = {name: jnp.asarray(RANDOM.normal(size=(3, 2, 4, 16)), jnp.float32) for name in tiny_model().modalities}
    names, valid = head.names, jnp.ones((2, 4), bool)
    text, there = jnp.asarray(RANDOM.normal(size=(2, 3, 5)), jnp.float32), jnp.ones(2, bool)
    says = jax.jit(lambda layers, text: head(layers, valid, None, Heard(
        {"text": stream_of(text, there)}, dict.fromkeys(layers, there))))  # fmt: skip
    answer, aside = says(layers, text)
    assert answer.shape == (2, K)
    assert aside["members"].shape == (2, len(names), K)
    assert names == (*tiny_model().modalities, "text")
    for m, name in enumerate(names):
        others = layers | {name: layers[name] + 1 + RANDOM.normal(size=(3, 2, 4, 16))} if name != "text" else layers
        changed = says(others, text if name != "text" else text[:, ::-1] ** 2)[1]["members"]
        moved = np.abs(np.asarray(changed - aside["members"])).max((0, 2)) > 1e-6
        assert moved.tolist() == [k == m for k in range(len(names))]
    if kind == "class":
        members, parts = np.asarray(aside["members"]), {k: np.asarray(x[...]) for k, x in head.fitted.items()}
        x = ((members - members.mean(-1, keepdims=True)).reshape(2, -1) - parts["mean"]) / parts["scale"]
        np.testing.assert_allclose(answer, x @ parts["kernel"] + parts["bias"], rtol=1e-4, atol=1e-4)
