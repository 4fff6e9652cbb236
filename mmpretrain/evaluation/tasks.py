"""Metrics of a task on some clips, by the kind of its labels; and which of their values are better.

Dims: N clips, T frames, C classes, K levels but the lowest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.frames import count
from mmpretrain.evaluation.metrics import METRICS, confusion_of, figures_of

Better = Literal["lower", "higher"]


class TaskMetrics(NamedTuple):
    """of(labels, outputs, task): the metrics by name, of labelled clips. better: of each metric, as an objective's.

    chances(outputs): log probabilities [N, C] of classes that exclude one another, and classes(labels): int [N], the
    one that each clip has, -1 where it cannot be said; of kinds that are such classes. untold(labels): the metrics that
    these labels do not tell, whatever is said of them; `of` leaves them out.
    """

    better: Mapping[str, Better]
    of: Callable[[np.ndarray, np.ndarray, TaskConfig], dict[str, float]]
    chances: Callable[[np.ndarray], np.ndarray] | None = None
    classes: Callable[[np.ndarray], np.ndarray] = lambda labels_N: labels_N
    untold: Callable[[np.ndarray], tuple[str, ...]] = lambda labels: ()


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    from scipy.special import log_softmax  # slow to import

    return log_softmax(logits, axis=-1)


def _log_sigmoid(logits: np.ndarray) -> np.ndarray:
    from scipy.special import log_expit  # slow to import

    return log_expit(logits)


def _figures(labels_N: np.ndarray, said_N: np.ndarray, task: TaskConfig) -> dict[str, float]:
    """UA, WA and F1; where no clip has a class, such as ties of votes alone, none."""
    known = labels_N >= 0
    if not known.any():
        return {}
    figures = figures_of(confusion_of(labels_N[known], said_N[known], task.classes))
    return {name: float(figures[name]) for name in METRICS}


def _class(labels_N: np.ndarray, logits_NC: np.ndarray, task: TaskConfig) -> dict[str, float]:
    loss = float(-_log_softmax(logits_NC)[np.arange(len(labels_N)), labels_N].mean())
    return {"loss": loss} | _figures(labels_N, logits_NC.argmax(-1), task)


def most_voted(shares_NC: np.ndarray) -> np.ndarray:
    """int64 [N]: the class with the most votes; -1 where two have as many, or there are none."""
    shares_NC = np.nan_to_num(shares_NC)
    most_N1 = shares_NC.max(1, keepdims=True)
    alone_N = (shares_NC == most_N1).sum(1) == 1
    return np.where(alone_N, shares_NC.argmax(1), -1)


def _untold_of_votes(shares_NC: np.ndarray) -> tuple[str, ...]:
    return () if (most_voted(shares_NC) >= 0).any() else METRICS


def _votes(shares_NC: np.ndarray, logits_NC: np.ndarray, task: TaskConfig) -> dict[str, float]:
    """`loss` is the cross-entropy with the shares; the others are of the most voted class, of clips that have one."""
    loss = float(-(shares_NC * _log_softmax(logits_NC)).sum(-1).mean())
    return {"loss": loss} | _figures(most_voted(shares_NC), logits_NC.argmax(-1), task)


def _told_apart(yes_NC: np.ndarray) -> np.ndarray:
    """bool [C]: which classes some clips have and others do not."""
    return yes_NC.any(0) & ~yes_NC.all(0)


def _untold_of_several(marked_NC: np.ndarray) -> tuple[str, ...]:
    return () if _told_apart(marked_NC > 0).any() else ("macro_f1", "auc")


def _several(marked_NC: np.ndarray, logits_NC: np.ndarray, task: TaskConfig) -> dict[str, float]:
    """`macro_f1` and `auc` are means over the classes that some clips have and others do not."""
    yes_NC, said_NC = marked_NC > 0, logits_NC > 0
    loss = -np.where(yes_NC, _log_sigmoid(logits_NC), _log_sigmoid(-logits_NC)).mean()
    hits = (yes_NC & said_NC).sum(0)
    f1_C = 2 * hits / np.maximum(yes_NC.sum(0) + said_NC.sum(0), 1)
    told_C = _told_apart(yes_NC)
    figures = {"loss": float(loss), "accuracy": float((yes_NC == said_NC).mean())}
    if told_C.any():
        areas = [area_under_curve(yes_NC[:, c], logits_NC[:, c]) for c in np.flatnonzero(told_C)]
        figures |= {"macro_f1": float(f1_C[told_C].mean()), "auc": float(np.mean(areas))}
    return figures


def _binary_chances(logit_N1: np.ndarray) -> np.ndarray:
    return np.concatenate([_log_sigmoid(-logit_N1), _log_sigmoid(logit_N1)], axis=1)


def _untold_of_two(labels_N: np.ndarray) -> tuple[str, ...]:
    return () if len(np.unique(labels_N)) == 2 else ("auc",)


def _binary(labels_N: np.ndarray, logit_N1: np.ndarray, task: TaskConfig) -> dict[str, float]:
    log_probs_N2 = _binary_chances(logit_N1)
    figures = {"loss": float(-log_probs_N2[np.arange(len(labels_N)), labels_N].mean())}
    figures |= _figures(labels_N, (logit_N1[:, 0] > 0).astype(int), task)
    if not _untold_of_two(labels_N):
        figures["auc"] = area_under_curve(labels_N > 0, logit_N1[:, 0])
    return figures


def area_under_curve(yes_N: np.ndarray, score_N: np.ndarray) -> float:
    """Of the receiver operating characteristic: how often a clip that is of a class scores above one that is not.

    A tie counts a half. There must be clips of both kinds.
    """
    from scipy.stats import rankdata  # slow to import

    ones = int(yes_N.sum())
    return float((rankdata(score_N)[yes_N].sum() - ones * (ones + 1) / 2) / (ones * (len(yes_N) - ones)))


def _level_chances(odds_NK: np.ndarray) -> np.ndarray:
    above_NK = 1 / (1 + np.exp(-np.asarray(odds_NK, np.float64)))
    ones, zeros = np.ones((len(above_NK), 1)), np.zeros((len(above_NK), 1))
    chances_NC = np.concatenate([ones, above_NK], axis=1) - np.concatenate([above_NK, zeros], axis=1)
    return np.log(np.maximum(chances_NC, 1e-12))


def _ordinal(labels_N: np.ndarray, odds_NK: np.ndarray, task: TaskConfig) -> dict[str, float]:
    """`mae` is in levels; `qwk` is Cohen's kappa with quadratic weights (Cohen 1968), 0 where neither varies."""
    said_N, above_NK = (odds_NK > 0).sum(-1), labels_N[:, None] > np.arange(odds_NK.shape[1])
    loss = -np.where(above_NK, _log_sigmoid(odds_NK), _log_sigmoid(-odds_NK)).sum(-1).mean()
    off_N = (said_N - labels_N).astype(float)
    by_chance = np.square(said_N[:, None] - labels_N[None, :]).mean()
    kappa = 1 - np.square(off_N).mean() / by_chance if by_chance > 0 else 0.0
    figures = {"loss": float(loss), "mae": float(np.abs(off_N).mean()), "qwk": float(kappa)}
    return figures | _figures(labels_N, said_N, task)


def _untold_of_points(labels_N: np.ndarray) -> tuple[str, ...]:
    return () if (np.unique(labels_N, return_counts=True)[1] > 1).any() else ("loss", "map", "nearest")


def _embedding(labels_N: np.ndarray, points_ND: np.ndarray, task: TaskConfig) -> dict[str, float]:
    """Each clip looks for the others of its class by cosine. `map` is the mean average precision over those that there
    is another of, `nearest` how often the first that is found is of the class; `loss` is 1 - map."""
    points_ND = points_ND / np.maximum(np.linalg.norm(points_ND, axis=1, keepdims=True), 1e-12)  # means of windows too
    similar_NN = points_ND @ points_ND.T
    found = []
    for n in range(len(labels_N)):
        order = np.argsort(-np.delete(similar_NN[n], n), kind="stable")
        hit = (np.delete(labels_N, n) == labels_N[n])[order]
        if hit.any():
            precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
            found.append((precision[hit].mean(), hit[0]))
    if not found:
        return {}
    precision, nearest = np.mean(found, axis=0)
    return {"loss": float(1 - precision), "map": float(precision), "nearest": float(nearest)}


def agreement(labels_N: np.ndarray, said_N: np.ndarray) -> dict[str, float]:
    """Of numbers: `ccc` (Lin 1989, biased moments), `pearson`, `mae` and `rmse`; 0 for a correlation without spread."""
    x_N, y_N = np.asarray(said_N, np.float64), np.asarray(labels_N, np.float64)
    dx_N, dy_N = x_N - x_N.mean(), y_N - y_N.mean()
    together, spread = (dx_N * dy_N).mean(), np.square(dx_N).mean() + np.square(dy_N).mean()
    apart, scale = spread + (x_N.mean() - y_N.mean()) ** 2, dx_N.std() * dy_N.std()
    return {
        "ccc": float(2 * together / apart) if apart > 0 else 0.0,
        "pearson": float(together / scale) if scale > 0 else 0.0,
        "mae": float(np.abs(x_N - y_N).mean()), "rmse": float(np.sqrt(np.square(x_N - y_N).mean())),
    }  # fmt: skip


def _values(labels: np.ndarray, outputs: np.ndarray, task: TaskConfig) -> dict[str, float]:
    """Of all labelled clips, or of all their labelled frames, at once. `loss` is what is learned, in the -1 to 1 scale.

    labels: [N] or [N, T], NaN where there is none; outputs: [..., 1], on the scale from -1 to 1.
    """
    known, (low, high) = ~np.isnan(labels), task.range
    figures = agreement(labels[known], ((high - low) * outputs[..., 0][known] + low + high) / 2)
    unit = 2 / (high - low)
    losses = {"squared": (unit * figures["rmse"]) ** 2, "absolute": unit * figures["mae"]}
    return {"loss": losses.get(task.loss, 1 - figures["ccc"])} | figures


def _frames(labels_NT: np.ndarray, logits_NTC: np.ndarray, task: TaskConfig) -> dict[str, float]:
    """`error` is of the sequence of units, see `evaluation.frames`; the others are means over frames."""
    known_NT = labels_NT >= 0
    log_probs_KC = _log_softmax(logits_NTC[known_NT])
    loss = float(-log_probs_KC[np.arange(len(log_probs_KC)), labels_NT[known_NT]].mean())
    silence = task.classes.index(task.silence) if task.silence else None
    counts = count(list(labels_NT), list(logits_NTC.argmax(-1)), silence)
    return {"loss": loss, "accuracy": counts.accuracy, "error": counts.error}


def _better(*higher: str, lower: tuple[str, ...] = ()) -> dict[str, Better]:
    return dict.fromkeys(("loss", *lower), "lower") | dict.fromkeys(higher, "higher")


_OF_VALUES = _better("ccc", "pearson", lower=("mae", "rmse"))

TASK_METRICS = {
    "class": TaskMetrics(_better(*METRICS), _class, _log_softmax),
    "votes": TaskMetrics(_better(*METRICS), _votes, _log_softmax, most_voted, _untold_of_votes),
    "classes": TaskMetrics(_better("accuracy", "macro_f1", "auc"), _several, untold=_untold_of_several),
    "binary": TaskMetrics(_better(*METRICS, "auc"), _binary, _binary_chances, untold=_untold_of_two),
    "ordinal": TaskMetrics(_better(*METRICS, "qwk", lower=("mae",)), _ordinal, _level_chances),
    "value": TaskMetrics(_OF_VALUES, _values),
    "embedding": TaskMetrics(_better("map", "nearest"), _embedding, untold=_untold_of_points),
    "frames": TaskMetrics(_better("accuracy", lower=("error",)), _frames),
    "values": TaskMetrics(_OF_VALUES, _values),
}
