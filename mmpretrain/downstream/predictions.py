"""What classifiers said of the clips that they were tested on, as tables in the folder of stage `evaluation`.

A table is a classifier's on one fold: a row a test clip, sealed like the stage's result. What is right or wrong has one
table; labels of every other kind have one of what the head put out as well, or instead. Does without JAX.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.data.labels import OF_FRAMES
from mmpretrain.evaluation.comparison import Answers
from mmpretrain.evaluation.told import Told, stacked
from mmpretrain.files import DamagedError
from mmpretrain.run.sealed import check_sealed, write_sealed_text

COLUMNS = ("clip_id", "speaker", "true", "predicted")
TOLD_COLUMNS = ("clip_id", "speaker", "label", "output")


def table_name(classifier: str, fold: int) -> str:
    return f"{classifier}-fold{fold}.csv"


def told_name(classifier: str, fold: int) -> str:
    return told_beside(table_name(classifier, fold))


def told_beside(table: str) -> str:
    """Where what the head put out is, of a table of answers."""
    return table.removesuffix(".csv") + "-outputs.csv"


def write_told(path: Path, told: Told) -> None:
    """A row a clip: its id, speaker, label and what the head put out, numbers apart by spaces; of frames one after
    another, up to the last that has a label."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(TOLD_COLUMNS)
    of_frames = told.task.kind in OF_FRAMES
    for clip_id, speaker, label, output in zip(told.clip_ids, told.speakers, told.labels, told.outputs, strict=True):
        if of_frames:
            known = label >= 0 if label.dtype.kind == "i" else ~np.isnan(label)
            label, output = (x[: np.flatnonzero(known)[-1] + 1] for x in (label, output))
        writer.writerow([clip_id, speaker, *(" ".join(f"{x:.9g}" for x in np.ravel(xs)) for xs in (label, output))])
    write_sealed_text(path, text.getvalue())


def read_told(path: Path, task: TaskConfig, command: str) -> Told:
    """What `write_told` wrote under `command`. Raises FileNotFoundError, or DamagedError saying what to do."""
    remedy = f"remove the folder {path.parent} and run `mmpretrain {command}` again"
    check_sealed(path, remedy=remedy)
    with open(path, encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    try:
        if tuple(columns) != TOLD_COLUMNS:
            raise ValueError(f"its columns are {', '.join(columns)}")
        labels, outputs = [], []
        for *_, label_cell, output_cell in rows:
            label, output = (np.array([float(x) for x in cell.split()]) for cell in (label_cell, output_cell))
            if task.classes and task.kind != "votes":
                label = label.astype(np.int64)
            if task.kind in OF_FRAMES:
                output = output.reshape(len(label), -1)
            elif len(label) == 1 and task.kind not in ("votes", "classes"):
                label = label[0]
            labels.append(np.asarray(label)[None])
            outputs.append(output[None])
        clip_ids, speakers = (tuple(row[i] for row in rows) for i in (0, 1))
        return Told(task, clip_ids, speakers, stacked(labels), stacked(outputs))
    except (IndexError, TypeError, ValueError) as error:
        raise DamagedError(f"{path} is no table of what was said about {task.name} ({error}); {remedy}") from error


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
