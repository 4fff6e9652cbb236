"""The frozen linear probe: how much of a label a straight line can read off each layer of an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpretrain.evaluation.metrics import ClassificationResult, classification_metrics

INVERSE_PENALTY = 0.1


def linear_probe(
    features_NLD: np.ndarray, labels_N: np.ndarray, train: np.ndarray, validation: np.ndarray, classes: Sequence[str]
) -> list[ClassificationResult]:
    """Logistic regression on the rows `train` of each of L layers, scored on the rows `validation`.

    features_NLD: float32, one pooled vector a clip and layer; labels_N: int class ids. Other rows are not looked at.
    The penalty is fixed: nothing is chosen. Raises ValueError where the train rows hold fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import: no stage waits for it at its start
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(labels_N[train])) < 2:
        raise ValueError("a linear probe needs training clips of at least two classes; label more clips")

    def score(features_ND: np.ndarray) -> ClassificationResult:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=5000))
        model.fit(features_ND[train], labels_N[train])
        return classification_metrics(labels_N[validation], model.predict(features_ND[validation]), classes)

    return [score(features_NLD[:, layer]) for layer in range(features_NLD.shape[1])]
