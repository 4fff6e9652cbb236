"""The parts of late fusion that are fitted: on the validation clips of a fold, once its network is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.data.labels import has_label
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.evaluation.linear import fit_head
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.models.heads import MultiTaskModel
from mmpretrain.models.late import fused, log_probs_of
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main

FARTHEST = 10.0  # of a weight's logarithm from that of the first modality
INVERSE_PENALTY = 1.0  # of the regression, scikit-learn's default


def fit_late(
    finetuning: Finetuning, model: MultiTaskModel, outputs: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, Any]:
    """Sets what `finetune.fusion` fits in the heads of `model`.

    outputs: what `Finetuning.predictor` says of these rows, the validation clips. Returns by task the weights of the
    modalities, for the fold's result.
    """
    told = {}
    for task in finetuning.config.tasks:
        head, labels = model.heads[task.name], finetuning.labels[task.name][rows]
        known = has_label(labels)
        said_NMK, there_NM = (outputs[f"{task.name}/{name}"][known] for name in ("members", "there"))
        there_NM = there_NM > 0
        for name, anywhere in zip(head.names, there_NM.any(0), strict=True):
            if not anywhere:
                log(f"finetune.fusion={finetuning.config.fusion!r}: no validation clip of task {task.name} has {name}, "
                    "so that nothing is known of what it is worth")  # fmt: skip
        fit = weights_of_modalities if "weights" in head.fitted else stacked_regression
        found = on_main(lambda fit=fit, of=(said_NMK, there_NM, labels[known], task): fit(*of))
        for name, x in found.items():
            old = head.fitted[name][...]
            head.fitted[name][...] = jax.device_put(np.asarray(x, np.float32), old.sharding)
        if "weights" in found:
            told[task.name] = dict(zip(head.names, map(float, found["weights"]), strict=True))
            shown = ", ".join(f"{name} {weight:.3f}" for name, weight in told[task.name].items())
            log(f"weights of {task.name}, fitted on {int(known.sum())} validation clips: {shown}")
    return {"late_weights": told} if told else {}


def weights_of_modalities(
    said_NMK: np.ndarray, there_NM: np.ndarray, labels: np.ndarray, task: TaskConfig
) -> dict[str, np.ndarray]:
    """`weights` [M], positive, of sum 1: those by which the answers have the least loss. Of none that is told, equal.

    Their logarithms are searched by Nelder and Mead's method, the first being 0.
    """
    from scipy.optimize import minimize  # slow to import

    num = said_NMK.shape[1]
    joined = jax.jit(lambda weights_M: fused(said_NMK, there_NM, task.kind, "weights", {"weights": weights_M}))

    def weights(logs: np.ndarray) -> np.ndarray:
        raised = np.exp(np.clip([0.0, *logs], -FARTHEST, FARTHEST))
        return raised / raised.sum()

    def loss(logs: np.ndarray) -> float:
        said = np.asarray(joined(weights(logs).astype(np.float32)))
        return TASK_METRICS[task.kind].of(labels, said, task)["loss"]

    if num == 1 or not len(labels):
        return {"weights": weights(np.zeros(num - 1))}
    simplex = np.vstack([np.zeros(num - 1), 2 * np.eye(num - 1)])
    options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6, "maxfev": 100 * num}
    return {"weights": weights(minimize(loss, simplex[0], method="Nelder-Mead", options=options).x)}


def stacked_regression(
    said_NMK: np.ndarray, there_NM: np.ndarray, labels_N: np.ndarray, task: TaskConfig
) -> dict[str, np.ndarray]:
    """Of logistic regression on the log probabilities what `models.late` computes with."""
    features_ND = np.asarray(log_probs_of(jnp.asarray(said_NMK), jnp.asarray(there_NM)), np.float64)
    return fit_head(features_ND, labels_N, task, INVERSE_PENALTY)._asdict()
