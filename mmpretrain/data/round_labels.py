"""The labels of the tasks that a round of pretraining learns beside its clusters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpretrain.config import CorpusConfig, TaskConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.labels import KNOWN_OF_ALL, class_of_word, task_labels
from mmpretrain.data.manifest import heard_words


def with_classes(task: TaskConfig, table: ClipTable, field: str) -> tuple[str, ...]:
    """The classes of a task: its own, or, where it leaves them open, all that occur in a table.

    Raises ValueError naming `field` where that is less than two.
    """
    column = task.column or task.name
    classes = task.classes or tuple(sorted(set(KNOWN_OF_ALL[column](table).kinds()) - {""}))
    if len(classes) < 2:
        of_one = f"of {classes[0]!r}" if classes else "of nobody named"
        raise ValueError(f"{field}: all {len(table)} training clips are {of_one}, so that there is no {column} to tell")
    return classes


def round_labels(table: ClipTable, task: TaskConfig, corpora: Sequence[CorpusConfig]) -> tuple[np.ndarray, np.ndarray]:
    """int32 [N], the class of each clip, -1 for none, and bool [N], whether somebody said so.

    Else it is a pseudo-label: of a retrieved corpus every clip is of the class that the manifest's embedding hears,
    whatever its label. A reversed task has no pseudo-labels. corpora: of the table.
    """
    column, kept = task.column or task.name, {}
    if not task.reversal:
        kept = {str(Path(corpus.path)): corpus.retrieved for corpus in corpora if corpus.retrieved}
    of_source = [kept.get(str(Path(source.corpus_dir)), "") for source in table.sources]
    if not any(of_source):
        return (labels := task_labels(table, task)), labels >= 0
    if all(of_source) and column not in table.label_kinds:
        labels = np.full(len(table), -1, np.int32)
    else:
        labels = task_labels(table, task)
    said, class_of = labels >= 0, class_of_word(task, column)
    for folder in dict.fromkeys(filter(None, of_source)):
        rows = np.flatnonzero(np.isin(table.source_N, [i for i, name in enumerate(of_source) if name == folder]))
        heard = heard_words(folder, column)
        words = [heard.get(content, "") for content in table.content_hashes[rows].tolist()]
        labels[rows], said[rows] = [class_of.get(word, -1) for word in words], False
    return labels, said
