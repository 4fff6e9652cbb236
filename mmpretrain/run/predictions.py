"""What classifiers said of the clips that they were tested on, as tables in the folder of stage `evaluation`.

A table is a classifier's on one fold: a row a test clip, sealed like the stage's result. Does without JAX.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpretrain.evaluation.comparison import Answers
from mmpretrain.files import DamagedError
from mmpretrain.run.sealed import check_sealed, write_sealed_text

COLUMNS = ("clip_id", "speaker", "true", "predicted")


def table_name(classifier: str, fold: int) -> str:
    return f"{classifier}-fold{fold}.csv"


def write_answers(path: Path, answers: Answers, probabilities_NC: np.ndarray | None = None) -> None:
    """A row a clip: its id, speaker, class and the one that was said; then, where known, how likely each class is."""
    classes, text = answers.classes, io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*COLUMNS, *(classes if probabilities_NC is not None else ())])
    for i, clip_id in enumerate(answers.clip_ids):
        said = (classes[answers.labels_N[i]], classes[answers.predictions_N[i]])
        shown = () if probabilities_NC is None else (f"{p:.4f}" for p in probabilities_NC[i])
        writer.writerow([clip_id, answers.speakers[i], *said, *shown])
    write_sealed_text(path, text.getvalue())


def read_probabilities(path: Path, classes: Sequence[str]) -> np.ndarray | None:
    """float64 [clips, C], to four digits; None where the table has none. The table is one that `read_answers` reads."""
    with open(path, encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    if columns[len(COLUMNS) :] != list(classes):
        return None
    return np.array([row[len(COLUMNS) :] for row in rows], np.float64)


def read_answers(path: Path, classes: Sequence[str], command: str = "evaluate") -> Answers:
    """What `write_answers` wrote under `command`. Raises FileNotFoundError, or DamagedError saying what to do."""
    remedy = f"remove the folder {path.parent} and run `mmpretrain {command}` again"
    check_sealed(path, remedy=remedy)
    with open(path, encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    number_of = {name: number for number, name in enumerate(classes)}
    try:
        clip_ids, speakers, *said = zip(*(row[: len(COLUMNS)] for row in rows), strict=True)
        ids = [np.array([number_of[word] for word in words], np.int64) for words in said]
        return Answers(tuple(classes), clip_ids, speakers, *ids)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path} is no table of answers about {', '.join(classes)} ({error}); {remedy}") from error
