"""Figures of a classifier on one test set, or on several pooled, all taken from the confusion matrix.

UA is the mean recall over the classes that occur, WA the plain accuracy, WF1 the F1 weighted by support, macro F1 the
mean F1 over the classes that occur. All are fractions from 0 to 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

METRICS = ("ua", "wa", "wf1", "macro_f1")


@dataclasses.dataclass(frozen=True)
class ClassificationResult:
    """confusion: int64 [C, C], rows are true classes, columns predicted ones, in the order of `classes`."""

    classes: tuple[str, ...]
    confusion: np.ndarray
    ua: float
    wa: float
    wf1: float
    macro_f1: float

    @classmethod
    def of(cls, confusion: np.ndarray, classes: Sequence[str]) -> ClassificationResult:
        """The figures that belong to a confusion matrix with at least one clip in it."""
        from sklearn.metrics import f1_score  # slow to import: no stage waits for it at its start

        confusion = np.asarray(confusion, np.int64)
        support = confusion.sum(1)
        occurring = np.flatnonzero(support)
        true, predicted = np.indices(confusion.shape)

        def f1(average: str) -> float:
            # Each cell of the matrix is one example that weighs as much as its count. A class without a single
            # clip has no recall, so it counts neither in UA nor in macro F1.
            return float(
                f1_score(
                    true.ravel(),
                    predicted.ravel(),
                    labels=occurring,
                    average=average,
                    sample_weight=confusion.ravel(),
                    zero_division=0,
                )
            )

        hits = np.diag(confusion)
        return cls(
            classes=tuple(classes),
            confusion=confusion,
            ua=float(np.mean(hits[occurring] / support[occurring])),
            wa=float(hits.sum() / support.sum()),
            wf1=f1("weighted"),
            macro_f1=f1("macro"),
        )

    @property
    def support(self) -> np.ndarray:
        """Number of test clips of each true class, int64 [C]."""
        return self.confusion.sum(1)

    @property
    def recalls(self) -> np.ndarray:
        """Of each class, float64 [C]; NaN for one without a clip."""
        return figures_of(self.confusion)["recalls"]

    @property
    def chance_ua(self) -> float:
        """The UA of any answer that does not look at the clip: one over the number of classes that occur."""
        return 1 / int(np.count_nonzero(self.support))

    @property
    def majority_wa(self) -> float:
        """The WA of always answering the most frequent class of the test set."""
        return float(self.support.max() / self.support.sum())

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain Python values, ready for JSON."""
        return {
            **{name: getattr(self, name) for name in METRICS},
            "chance_ua": self.chance_ua,
            "majority_wa": self.majority_wa,
            "classes": list(self.classes),
            "recalls": [None if np.isnan(recall) else float(recall) for recall in self.recalls],
            "support": self.support.tolist(),
            "confusion": self.confusion.tolist(),
        }


def figures_of(confusion_BCC: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of many confusion matrices at once, by name: float64 [...] for [..., C, C], as those of one are.

    For resamples, of which there are thousands. Every matrix has at least one clip in it. "recalls" are of the classes,
    [..., C], NaN where a class does not occur.
    """
    hits_BC = np.diagonal(confusion_BCC, axis1=-2, axis2=-1).astype(np.float64)
    support_BC, said_BC = confusion_BCC.sum(-1).astype(np.float64), confusion_BCC.sum(-2)
    occurring_BC = support_BC > 0
    recall_BC = hits_BC / np.where(occurring_BC, support_BC, 1)
    f1_BC = 2 * hits_BC / np.where(support_BC + said_BC > 0, support_BC + said_BC, 1)
    total_B, occurring_B = support_BC.sum(-1), occurring_BC.sum(-1)
    return {
        "ua": recall_BC.sum(-1) / occurring_B,
        "wa": hits_BC.sum(-1) / total_B,
        "wf1": (f1_BC * support_BC).sum(-1) / total_B,
        "macro_f1": f1_BC.sum(-1) / occurring_B,
        "recalls": np.where(occurring_BC, recall_BC, np.nan),
    }


def classification_metrics(
    labels_N: np.ndarray, predictions_N: np.ndarray, classes: Sequence[str]
) -> ClassificationResult:
    """What `confusion_of` comes to."""
    return ClassificationResult.of(confusion_of(labels_N, predictions_N, classes), classes)


def confusion_of(labels_N: np.ndarray, predictions_N: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Counts predicted and true class ids, both integers [N] in range(len(classes)): int64 [C, C], rows are true.

    Raises ValueError for no clip at all, differing lengths, or an id outside the classes.
    """
    labels_N, predictions_N = np.asarray(labels_N), np.asarray(predictions_N)
    if labels_N.ndim != 1 or labels_N.shape != predictions_N.shape:
        raise ValueError(f"labels {labels_N.shape} and predictions {predictions_N.shape} must be lists of one length")
    if not len(labels_N):
        raise ValueError("no clip to evaluate: the test part is empty; check the labels and the protocol")
    for name, ids in (("labels", labels_N), ("predictions", predictions_N)):
        if ids.min() < 0 or ids.max() >= len(classes):
            raise ValueError(
                f"{name} hold class ids from {ids.min()} to {ids.max()}, but there are {len(classes)} classes "
                f"({', '.join(classes)}); leave out clips of other classes"
            )
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels_N, predictions_N), 1)
    return confusion


def pooled(results: Sequence[ClassificationResult]) -> ClassificationResult:
    """One result over all test clips of several folds: their confusion matrices are added up."""
    if not results or len({result.classes for result in results}) > 1:
        raise ValueError("results to pool must be at least one, all over the same classes")
    return ClassificationResult.of(sum(result.confusion for result in results), results[0].classes)
