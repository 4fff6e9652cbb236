"""The plain baseline every result is shown beside: statistics of MFCCs over the clip, and logistic regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpretrain.evaluation.metrics import ClassificationResult, classification_metrics
from mmpretrain.evaluation.protocols import Fold
from mmpretrain.features.mfcc import mfcc39

NUM_STATISTICS = 4 * 39
INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0)


def clip_statistics(audio: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, minimum and maximum over time of the 39 MFCC features, float32 [156].

    audio: int16 [N] at 16 kHz. A clip without sound, or with less than one window of 25 ms, gives zeros.
    """
    mfcc_TF = mfcc39(audio)
    if not len(mfcc_TF):
        return np.zeros(NUM_STATISTICS, np.float32)
    return np.concatenate([mfcc_TF.mean(0), mfcc_TF.std(0), mfcc_TF.min(0), mfcc_TF.max(0)]).astype(np.float32)


def mfcc_baseline(
    features_ND: np.ndarray, labels_N: np.ndarray, fold: Fold, classes: Sequence[str]
) -> ClassificationResult:
    """Trains on the fold's train rows, chooses the penalty by UA on its validation rows, and tests once.

    features_ND: float32 [N, 156], a `clip_statistics` per row of the index; labels_N: int class ids [N], read only at
    the fold's rows. Raises ValueError where the train rows hold fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import: no stage waits for it at its start
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    present = np.unique(labels_N[fold.train])
    if len(present) < 2:
        names = ", ".join(classes[i] for i in present)
        raise ValueError(f"the train part has only the class `{names}`: a classifier needs clips of at least two")

    def train(inverse_penalty: float):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=5000))
        return model.fit(features_ND[fold.train], labels_N[fold.train])

    def evaluate(model, rows: np.ndarray) -> ClassificationResult:
        return classification_metrics(labels_N[rows], model.predict(features_ND[rows]), classes)

    # max keeps the first of equals, which is the strongest penalty.
    best = max(map(train, INVERSE_PENALTIES), key=lambda model: evaluate(model, fold.validation).ua)
    return evaluate(best, fold.test)
