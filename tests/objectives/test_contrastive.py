"""The losses of embeddings against a plain writing of their formulas, clip by clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.objectives.contrastive import semi_hard_triplet, supervised_contrastive

RANDOM = np.random.default_rng(3)
LABELS = np.array([0, 1, 0, 2, -1, 1, 0, 1])  # 2 is alone, and one has no label
KNOWN = LABELS >= 0


def points(spread=1.0):
    z = RANDOM.normal(size=(len(LABELS), 5)) * spread + RANDOM.normal(size=5)
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def others(i, same):
    return [j for j in np.flatnonzero(KNOWN) if j != i and (LABELS[j] == LABELS[i]) == same]


def contrastive(z, i, temperature):
    exps = {j: np.exp(z[i].astype(float) @ z[j] / temperature) for j in others(i, True) + others(i, False)}
    return -np.mean([np.log(exps[p] / sum(exps.values())) for p in others(i, True)])


def triplet(z, i, margin):
    d = np.square(z[i].astype(float) - z).sum(1)
    negatives, losses = others(i, False), []
    for p in others(i, True):
        farther = [d[n] for n in negatives if d[n] > d[p]]
        losses.append(max(0, d[p] - (min(farther) if farther else max(d[n] for n in negatives)) + margin))
    return np.mean(losses)


@pytest.mark.parametrize(
    ("loss", "plain", "value"), [(supervised_contrastive, contrastive, 0.07), (semi_hard_triplet, triplet, 0.5)]
)
def test_losses_are_as_they_are_written(loss, plain, value):
    for z in (points(), points(0.1)):
        of_clip, has = loss(jnp.asarray(z), jnp.asarray(LABELS), value)
        assert has.tolist() == (KNOWN & (LABELS != 2)).tolist()
        there = np.flatnonzero(has)
        assert np.asarray(of_clip)[there] == pytest.approx([plain(z, i, value) for i in there], rel=1e-4, abs=1e-6)
        slope = jax.grad(lambda z: jnp.where(has, loss(z, jnp.asarray(LABELS), value)[0], 0).sum())(jnp.asarray(z))  # noqa: B023
        assert np.isfinite(slope).all()
        assert not np.any(slope[4]), "what has no label moves nothing and is not moved"


def test_a_batch_without_pairs_has_no_loss_and_no_slope():
    for labels in (np.arange(8), np.full(8, -1)):
        for loss in (supervised_contrastive, semi_hard_triplet):
            total = jax.grad(lambda z: jnp.where(*reversed(loss(z, labels, 0.1)), 0).sum())  # noqa: B023
            assert not loss(jnp.asarray(points()), labels, 0.1)[1].any()
            assert not np.any(total(jnp.asarray(points())))


def test_clips_are_found_by_their_class():
    task = TaskConfig("t", kind="embedding", classes=("a", "b"))
    near = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.8, 0.2]])
    figures = TASK_METRICS["embedding"].of(np.array([0, 0, 1, 1, 0]), near, task)
    assert figures == {"loss": 0.0, "map": 1.0, "nearest": 1.0}
    labels, points = np.arange(40) % 2, RANDOM.normal(size=(40, 4))
    figures = TASK_METRICS["embedding"].of(labels, points, task)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rest = [np.delete(np.arange(40), n) for n in range(40)]
    plain = [average_precision_score(labels[r] == labels[n], points[r] @ points[n]) for n, r in enumerate(rest)]
    assert figures["map"] == pytest.approx(np.mean(plain)), "of points of any length: those of long clips are means"
