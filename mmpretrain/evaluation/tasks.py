"""Metrics of a task on some clips, by the kind of its labels; and which of their values are better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.frames import count
from mmpretrain.evaluation.metrics import METRICS, classification_metrics


class TaskMetrics(NamedTuple):
    """of(labels, outputs, task): the metrics by name, of labelled clips. better: of each metric, as an objective's."""

    better: Mapping[str, Literal["lower", "higher"]]
    of: Callable[[np.ndarray, np.ndarray, TaskConfig], dict[str, float]]


def _classes(labels_N: np.ndarray, logits_NC: np.ndarray, task: TaskConfig) -> dict[str, float]:
    result = classification_metrics(labels_N, logits_NC.argmax(-1), task.classes)
    log_probs_NC = jax.nn.log_softmax(jnp.asarray(logits_NC))
    loss = float(-log_probs_NC[np.arange(len(labels_N)), labels_N].mean())
    return {"loss": loss} | {name: getattr(result, name) for name in METRICS}


def _frames(labels_NT: np.ndarray, logits_NTC: np.ndarray, task: TaskConfig) -> dict[str, float]:
    """`error` is of the sequence of units, see `evaluation.frames`; the others are means over frames."""
    known_NT = labels_NT >= 0
    log_probs_KC = np.asarray(jax.nn.log_softmax(jnp.asarray(logits_NTC[known_NT])))
    loss = float(-log_probs_KC[np.arange(len(log_probs_KC)), labels_NT[known_NT]].mean())
    silence = task.classes.index(task.silence) if task.silence else None
    counts = count(list(labels_NT), list(logits_NTC.argmax(-1)), silence)
    return {"loss": loss, "accuracy": counts.accuracy, "error": counts.error}


TASK_METRICS = {
    "class": TaskMetrics({"loss": "lower"} | dict.fromkeys(METRICS, "higher"), _classes),
    "frames": TaskMetrics({"loss": "lower", "accuracy": "higher", "error": "lower"}, _frames),
}
