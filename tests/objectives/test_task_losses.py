"""The loss of every kind of labels at values that scikit-learn, SciPy or NumPy give as well; and what is changed."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.tasks import TASK_METRICS, agreement, area_under_curve, most_voted
from mmpretrain.objectives.task_losses import TASK_LOSSES, Asked, concordance

RANDOM = np.random.default_rng(0)
N = 12
ABC = ("a", "b", "c")


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def said(kind, outputs, labels, smoothing=0.0, **fields):
    """Loss of each clip that has a label, in NumPy."""
    task = TaskConfig("t", kind=kind, **fields)
    loss, has_label, _ = TASK_LOSSES[kind].loss(jnp.asarray(outputs), jnp.asarray(labels), Asked(task, smoothing))
    return np.asarray(loss)[np.asarray(has_label)]


def ccc(x, y):
    """Lin's coefficient as the papers write it."""
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_classes_focus_and_votes():
    logits, labels = RANDOM.normal(size=(N, 3)).astype(np.float32), np.arange(N) % 4 - 1
    p = softmax(logits)[labels >= 0][np.arange(9), labels[labels >= 0]]
    plain = said("class", logits, labels, classes=ABC)
    assert plain == pytest.approx(-np.log(p), rel=1e-5)
    assert said("class", logits, labels, classes=ABC, loss="focal", focal_gamma=0.0) == pytest.approx(plain)
    focal = said("class", logits, labels, classes=ABC, loss="focal", focal_gamma=2.0)
    assert focal == pytest.approx(-((1 - p) ** 2) * np.log(p), rel=1e-4)
    shares = np.full((N, 3), np.nan, np.float32)
    shares[labels >= 0] = np.eye(3)[labels[labels >= 0]]
    assert said("votes", logits, shares, classes=ABC) == pytest.approx(plain), "votes that agree are classes"
    half = np.array([[0.5, 0.5, 0]], np.float32)
    logs = np.log(softmax(logits[:1]))[0]
    assert said("votes", logits[:1], half, classes=ABC) == pytest.approx(-(logs[0] + logs[1]) / 2, rel=1e-5)
    smooth = said("class", logits[1:2], labels[1:2], smoothing=0.3, classes=ABC)
    logs = np.log(softmax(logits[1]))
    assert smooth == pytest.approx(-0.7 * logs[0] - 0.1 * logs.sum(), rel=1e-5)


def test_yes_and_no_several_classes_and_levels():
    x, yes = RANDOM.normal(size=(N, 1)).astype(np.float32), np.arange(N) % 3 - 1
    known = yes >= 0
    by_sklearn = metrics.log_loss(yes[known], 1 / (1 + np.exp(-x[known, 0])))
    assert said("binary", x, yes, classes=("no", "yes")).mean() == pytest.approx(by_sklearn, rel=1e-5)
    marked = np.array([[1, 0, 1], [-1, -1, -1], [0, 0, 0]])
    several = said("classes", np.zeros((3, 3), np.float32), marked, classes=ABC)
    assert several == pytest.approx([np.log(2)] * 2)
    odds, levels = np.array([[2.0, -1.0], [0.5, 0.1]], np.float32), np.array([1, 2])
    log_p = np.log(1 / (1 + np.exp(-odds * [[1, -1], [1, 1]])))
    assert said("ordinal", odds, levels, classes=ABC) == pytest.approx(-log_p.sum(-1), rel=1e-5)


def test_values_agree_on_the_scale_of_their_labels():
    x, y = RANDOM.normal(size=N), RANDOM.uniform(1, 5, N)
    scaled, holes = (y - 3) / 2, np.where(np.arange(N) % 5, y, np.nan)
    known = ~np.isnan(holes)
    loss = said("value", x[:, None], holes, range=(1.0, 5.0))
    assert loss == pytest.approx([1 - ccc(x[known], scaled[known])] * known.sum(), rel=1e-4)
    squared = said("value", x[:, None], holes, range=(1.0, 5.0), loss="squared")
    assert squared == pytest.approx((x - scaled)[known] ** 2, rel=1e-4)
    frames, labels = x.reshape(3, 4, 1), holes.reshape(3, 4)
    assert said("values", frames, labels, range=(1.0, 5.0)) == pytest.approx([loss[0]] * 3), "of all frames at once"
    absolute = said("values", frames, labels, range=(1.0, 5.0), loss="absolute")
    assert absolute == pytest.approx(np.nanmean(np.abs(x - (holes - 3) / 2).reshape(3, 4), axis=1), rel=1e-4)
    nobody = concordance(jnp.ones(3), jnp.ones(3), jnp.zeros(3, bool))
    assert nobody == 0
    assert np.isfinite(concordance(jnp.ones(3), jnp.ones(3), jnp.ones(3, bool)))


def test_figures_are_those_of_other_libraries():
    x, y = RANDOM.normal(size=N), RANDOM.uniform(-1, 1, N)
    found = agreement(y, x)
    assert found["ccc"] == pytest.approx(ccc(x, y))
    assert found["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, x))
    assert agreement(y, np.zeros(N))["pearson"] == 0, "a constant answer agrees with nothing"
    yes, tied = RANDOM.random(50) < 0.4, RANDOM.integers(0, 5, 50)
    assert area_under_curve(yes, tied) == pytest.approx(metrics.roc_auc_score(yes, tied))
    levels, odds = RANDOM.integers(0, 4, 40), np.sort(RANDOM.normal(size=(40, 3)), axis=1)[:, ::-1]
    task = TaskConfig("t", kind="ordinal", classes=("0", "1", "2", "3"))
    figures = TASK_METRICS["ordinal"].of(levels, odds, task)
    chosen = (odds > 0).sum(1)
    assert figures["qwk"] == pytest.approx(metrics.cohen_kappa_score(levels, chosen, weights="quadratic"))
    assert np.exp(TASK_METRICS["ordinal"].chances(odds)).sum(1) == pytest.approx(np.ones(40))
    task = TaskConfig("t", kind="classes", classes=ABC)
    marked, logits = RANDOM.integers(0, 2, (40, 3)), RANDOM.normal(size=(40, 3))
    figures = TASK_METRICS["classes"].of(marked, logits, task)
    assert figures["auc"] == pytest.approx(metrics.roc_auc_score(marked, logits, average="macro"))
    assert figures["macro_f1"] == pytest.approx(metrics.f1_score(marked, logits > 0, average="macro"))
    assert most_voted(np.array([[0.5, 0.5], [0.7, 0.3], [np.nan, np.nan]])).tolist() == [-1, 0, -1]
    values = TASK_METRICS["value"].of(y * 2 + 3, x[:, None].astype(float), TaskConfig("t", kind="value", range=(1, 5)))
    assert values["ccc"] == pytest.approx(ccc(x, y))
    assert values["mae"] == pytest.approx(2 * found["mae"])
