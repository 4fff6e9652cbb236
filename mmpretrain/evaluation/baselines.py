"""The plain baselines that results stand beside: statistics of sound or picture, or words, and simple classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.linear import LinearHead, fit_head, regression, solving
from mmpretrain.evaluation.metrics import classification_metrics
from mmpretrain.evaluation.protocols import Fold
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.features.mfcc import levels_db, mfcc39

NUM_SOUND_STATISTICS = 4 * 39
HEARD_DB = 30.0  # below the clip's loud rows (95 in 100 are below); what is quieter is silence
PICTURE_CELLS = 16  # across and down
NUM_PICTURE_STATISTICS = 4 * PICTURE_CELLS**2
INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0)
SVM_INVERSE_PENALTIES = (0.1, 1.0, 10.0, 100.0)
TEXT_INVERSE_PENALTIES = (0.1, 1.0, 10.0)


def sound_statistics(audio: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, minimum and maximum over time of the 39 MFCC features, float32 [156].

    Over the rows that are no silence: how long it is, and whether a recorder left it digital, is otherwise most of what
    they say. audio: int16 [N] at 16 kHz. A clip with less than one window of 25 ms gives zeros.
    """
    mfcc_TF = mfcc39(audio)
    if not len(mfcc_TF):
        return np.zeros(NUM_SOUND_STATISTICS, np.float32)
    levels_T = levels_db(mfcc_TF)
    mfcc_TF = mfcc_TF[levels_T >= np.percentile(levels_T, 95) - HEARD_DB]
    return np.concatenate([mfcc_TF.mean(0), mfcc_TF.std(0), mfcc_TF.min(0), mfcc_TF.max(0)]).astype(np.float32)


def picture_statistics(video_THW: np.ndarray) -> np.ndarray:
    """Mean and deviation over time of the picture in 16 x 16 cells, then of how much it changes, float32 [1024].

    video_THW: uint8, at least one frame, as the network gets it. A cell is the mean of its share of the pixels: of a
    face so much is left as tells an opened mouth, a raised brow or a smile, and nothing finer. The mean picture has
    the expression that lasts, its deviation where the face moves. Changes are taken without their sign: with it they
    add up to the last frame less the first. A clip of one frame has no change.
    """
    cells_TF = picture_cells(video_THW)
    changes_TF = np.abs(np.diff(cells_TF, axis=0)) if len(cells_TF) > 1 else np.zeros_like(cells_TF)
    moments = (cells_TF.mean(0), cells_TF.std(0), changes_TF.mean(0), changes_TF.std(0))
    return np.concatenate(moments).astype(np.float32)


def picture_cells(video_THW: np.ndarray) -> np.ndarray:
    """The mean of each of 16 x 16 cells of every frame, 0 to 1, float32 [T, 256]. video_THW: uint8."""
    down, across = (_cells(size) for size in video_THW.shape[1:])
    return (down @ video_THW.astype(np.float32) @ across.T).reshape(len(video_THW), -1) / 255


def _cells(size: int) -> np.ndarray:
    """float32 [16, size]: what each pixel of a row counts in the mean of each cell, whatever `size` is."""
    edges = np.arange(PICTURE_CELLS + 1) * size / PICTURE_CELLS
    starts = np.arange(size)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.maximum(overlap, 0) * PICTURE_CELLS / size).astype(np.float32)


def svm(features_ND: np.ndarray, labels_N: np.ndarray, inverse_penalty: float) -> Any:
    """Scikit-learn's support vector machine with a radial kernel, fitted, of features of mean 0 and deviation 1."""
    from sklearn.pipeline import make_pipeline  # slow to import
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(C=inverse_penalty)).fit(features_ND, labels_N)


def baseline_answers(
    features_ND: np.ndarray, labels_N: np.ndarray, fold: Fold, classes: Sequence[str],
    fit: Callable[[np.ndarray, np.ndarray, float], Any] = regression,
    inverse_penalties: Sequence[float] = INVERSE_PENALTIES,
) -> np.ndarray:  # fmt: skip
    """The class ids, int [test rows], that a classifier gives the fold's test rows, which it has not seen.

    It is trained on the train rows; the penalty is chosen by UA on the validation rows. fit: logistic regression, or
    `svm` with `SVM_INVERSE_PENALTIES`.

    features_ND: float32, statistics of every row of the index, NaN where a clip has no sound or picture: such a clip
    is not trained on, and is answered as the mean of the training clips is. labels_N: int class ids, read at the
    fold's rows alone. Raises ValueError where the train rows with features hold fewer than two classes.
    """
    known_N = ~np.isnan(features_ND[:, 0])
    rows = fold.train[known_N[fold.train]]
    _require_classes(labels_N[rows], classes)
    filled_ND = np.where(known_N[:, None], features_ND, features_ND[rows].mean(0))
    return _chosen_answers(filled_ND, labels_N, rows, fold, classes, fit, inverse_penalties)


def baseline_outputs(features_ND: np.ndarray, labels_N: np.ndarray, fold: Fold, task: TaskConfig) -> np.ndarray:
    """As `baseline_answers`, of any kind that regressions learn: float32 [test rows, K], as `TASK_METRICS` takes them.

    The penalty is the one with the least loss on the validation rows.
    """
    known_N = ~np.isnan(features_ND[:, 0])
    rows = fold.train[known_N[fold.train]]
    filled_ND = np.where(known_N[:, None], features_ND, features_ND[rows].mean(0))

    def validation_loss(head: LinearHead) -> float:
        said = head.logits(filled_ND[fold.validation])
        return TASK_METRICS[task.kind].of(labels_N[fold.validation], said, task)["loss"]

    heads = (fit_head(filled_ND[rows], labels_N[rows], task, penalty) for penalty in INVERSE_PENALTIES)
    return min(heads, key=validation_loss).logits(filled_ND[fold.test])


def constant_outputs(train_labels: np.ndarray, labels: np.ndarray, task: TaskConfig) -> np.ndarray:
    """One answer to all test clips, or frames, as a head of the kind says it: what the training labels are on average.

    Of numbers their mean, of classes and levels the shares of clips that have them, or are as high. labels: of the test
    clips, [N, ...]. Returns [N, K], of frames [N, T, K].
    """
    if not task.classes:
        low, high = task.range
        output = np.array([(2 * np.nanmean(train_labels) - low - high) / (high - low)])
        return np.broadcast_to(output, (*labels.shape, 1))
    if task.kind == "ordinal":
        shares = np.array([(train_labels >= level).mean() for level in range(1, len(task.classes))])
    elif task.kind == "binary":
        shares = np.array([(train_labels > 0).mean()])
    else:
        shares = np.nanmean(np.where(train_labels >= 0, train_labels, np.nan), axis=0)
    shares = np.clip(shares, 1e-6, 1 - 1e-6)
    output = np.log(shares) if task.kind == "votes" else np.log(shares / (1 - shares))
    return np.broadcast_to(output, (len(labels), len(output)))


def text_answers(texts: Sequence[str], labels_N: np.ndarray, fold: Fold, classes: Sequence[str]) -> np.ndarray:
    """As `baseline_answers`, of what is spoken: TF-IDF of words and pairs of words, and logistic regression.

    Classes count alike in the loss (the commonest of MELD has half of its clips). Words are those of the training
    clips that have a text; a clip that has none is answered by the intercept alone. texts: of every row of the index.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

    rows = np.array([row for row in fold.train if texts[row].strip()], np.int64)
    _require_classes(labels_N[rows], classes)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([texts[row] for row in rows])
    return _chosen_answers(
        words.transform(texts), labels_N, rows, fold, classes, _text_regression, TEXT_INVERSE_PENALTIES
    )


def _text_regression(features_NF: Any, labels_N: np.ndarray, inverse_penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression  # slow to import

    with solving():
        return LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=1000).fit(features_NF, labels_N)


def _require_classes(labels_N: np.ndarray, classes: Sequence[str]) -> None:
    present = np.unique(labels_N)
    if len(present) < 2:
        names = ", ".join(classes[i] for i in present) or "none"
        raise ValueError(f"its training clips have only the class `{names}`: a classifier needs clips of at least two")


def _chosen_answers(
    features: Any, labels_N: np.ndarray, rows: np.ndarray, fold: Fold, classes: Sequence[str],
    fit: Callable[[Any, np.ndarray, float], Any], inverse_penalties: Sequence[float],
) -> np.ndarray:  # fmt: skip
    """What the classifier, trained on `rows`, with the highest UA on validation says of the test rows.

    features: an array or a sparse matrix, of all rows of the index.
    """

    def validation_ua(model: Any) -> float:
        said = model.predict(features[fold.validation])
        return classification_metrics(labels_N[fold.validation], said, classes).ua

    models = (fit(features[rows], labels_N[rows], inverse_penalty) for inverse_penalty in inverse_penalties)
    # max keeps the first of equals, which is the strongest penalty.
    return max(models, key=validation_ua).predict(features[fold.test])
