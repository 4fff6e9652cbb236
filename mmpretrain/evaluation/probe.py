"""The frozen linear probe: how much of a label a straight line can read off each layer of an encoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpretrain.evaluation.linear import regression
from mmpretrain.evaluation.metrics import ClassificationResult, classification_metrics

INVERSE_PENALTY = 0.1
NUM_PARTS = 3  # of the training clips, each held out once to choose the layer


class Probe(NamedTuple):
    """results: of every layer, on the validation rows. layer: the chosen one. predicted: int [V], its answers there."""

    results: list[ClassificationResult]
    layer: int
    predicted: np.ndarray

    @property
    def chosen(self) -> ClassificationResult:
        return self.results[self.layer]


def linear_probe(
    features_NLF: np.ndarray,
    labels_N: np.ndarray,
    speakers_N: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    classes: Sequence[str],
) -> Probe:
    """Logistic regression on the rows `train` of each layer, scored on the rows `validation`.

    features_NLF: float32, one vector a clip and layer; labels_N: int class ids; speakers_N: names. Other rows are not
    looked at. The penalty is fixed. The layer is chosen by the training rows alone, as the one with the highest UA on
    clips held out of them (a third at a time, of speakers of its own where there are several; of equals the lowest);
    the rows that it is scored on have no say. Raises ValueError where the train rows hold fewer than two classes.
    """
    if len(np.unique(labels_N[train])) < 2:
        raise ValueError("a linear probe needs training clips of at least two classes; label more clips")
    held_out = _held_out(labels_N[train], speakers_N[train])
    results, answers, chosen_by = [], [], []
    for features_NF in np.moveaxis(features_NLF, 1, 0):
        predicted = _answers(features_NF, labels_N, train, validation)
        results.append(classification_metrics(labels_N[validation], predicted, classes))
        answers.append(predicted)
        known = [(train[held], _answers(features_NF, labels_N, train[~held], train[held])) for held in held_out]
        rows, guesses = (np.concatenate(part) for part in zip(*known, strict=True)) if known else (validation[:0],) * 2
        chosen_by.append(classification_metrics(labels_N[rows], guesses, classes).ua if known else 0.0)
    layer = int(np.argmax(chosen_by))
    return Probe(results, layer, answers[layer])


def probe_layers(
    features_NLF: np.ndarray, labels_N: np.ndarray, train: np.ndarray, asked: np.ndarray, classes: Sequence[str]
) -> list[ClassificationResult]:
    """What a regression on the rows `train` of each layer says of the rows `asked`; no layer is chosen."""
    return [
        classification_metrics(labels_N[asked], _answers(features_NF, labels_N, train, asked), classes)
        for features_NF in np.moveaxis(features_NLF, 1, 0)
    ]


def _answers(features_NF: np.ndarray, labels_N: np.ndarray, fit: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The classes of the rows `asked`, by a regression on the rows `fit`."""
    model = regression(features_NF[fit], labels_N[fit], INVERSE_PENALTY)
    return model.predict(features_NF[asked])


def _held_out(labels_N: np.ndarray, speakers_N: np.ndarray) -> list[np.ndarray]:
    """bool [N] each: parts of the clips that the rest can be asked about. By speaker, or else by clip; else none.

    The parts are much alike in their classes, as far as that goes.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    rows = np.arange(len(labels_N))
    for groups_N in (speakers_N, rows):
        num_parts = min(NUM_PARTS, len(np.unique(groups_N)), max(np.unique(labels_N, return_counts=True)[1]))
        if num_parts < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes that not every part can have
            splits = list(StratifiedGroupKFold(num_parts).split(rows, labels_N, groups_N))
        if parts := [np.isin(rows, held) for fit, held in splits if len(held) and len(np.unique(labels_N[fit])) > 1]:
            return parts
    return []
