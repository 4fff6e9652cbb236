"""The classifier `frozen_linear`: regression on the layers of an encoder that stays as it is.

What it hears of a clip is the mean and the standard deviation of every layer over the clip's frames. The untrained
encoder, which stands for "from scratch", is one for all folds.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from mmpretrain.config import as_dict, fingerprint
from mmpretrain.data.labels import has_label
from mmpretrain.downstream.finetuning import CLASSIFIER, Finetuning
from mmpretrain.evaluation.linear import LinearHead, fit_head
from mmpretrain.files import check_seal, present_folder, read_arrays, seal, whole_folder, write_arrays
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.parallel.mesh import whole
from mmpretrain.run.forward import LayerStatistics
from mmpretrain.run.layout import PRETRAINED
from mmpretrain.train.best import is_better

# Strongest penalty first, which wins among equals: an encoder's layers have thousands of dims, and clips are few.
INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HEADS_FILE = "heads.npz"
REMEDY = "remove its fold's folder and run `mmpretrain finetune` again"


class Frozen:
    """The regressions of a run. All processes ask for features together; one process fits, saves and loads."""

    def __init__(self, finetuning: Finetuning, rows: np.ndarray | None = None):
        """rows: ascending, the only ones that will be asked for; None: those of all folds."""
        self._finetuning, self._rows = finetuning, rows

    def features(self, variant: str, rows: np.ndarray) -> np.ndarray:
        """float32 [rows, (L + 1) 2 D], by layer the means and then the deviations, of clips of any fold of the run.

        The first call of a variant looks at the clips of all folds, so that it sees each of them once.
        """
        finetuning, run = self._finetuning, self._finetuning.run
        of = finetuning.encoder.fingerprint if variant == PRETRAINED else f"seed {run.config.seed}"
        known = finetuning.layers.setdefault(of, {})
        if not known.keys() >= set(rows.tolist()):
            missing = np.array([row for row in self._used.tolist() if row not in known])
            table, title = finetuning.table.select(missing), f"{variant}: statistics of layers"
            found = looking(finetuning, variant, self.encoder(variant))(table, title)
            known.update(zip(missing.tolist(), found.reshape(len(found), -1), strict=True))
        return np.stack([known[row] for row in rows.tolist()])

    @functools.cached_property
    def _used(self) -> np.ndarray:
        """The rows that are looked at, ascending."""
        if self._rows is not None:
            return self._rows
        folds = [self._finetuning.fold(number) for number in self._finetuning.folds]
        return np.unique(np.concatenate([part for f in folds for part in (f.train, f.validation, f.test)]))

    def encoder(self, variant: str) -> AVEncoder:
        """The pretrained one, or the network from random weights that training from scratch would begin with."""
        finetuning, run = self._finetuning, self._finetuning.run
        if variant == PRETRAINED:
            return finetuning.encoder.load().module
        trainer = finetuning.trainer(variant)
        state = trainer.init(run.stage_seed(f"finetune/{variant}"))
        return trainer.model(whole(state, run.mesh)).encoder

    def fit(self, features_ND: np.ndarray, number: int, folder: Path) -> dict[str, float]:
        """`fit_heads` of a fold, saved under `folder`. Returns their penalty and the metrics."""
        heads, values = fit_heads(self._finetuning, number, features_ND)
        with whole_folder(folder / CLASSIFIER) as draft:
            arrays = {f"{task}/{field}": x for task, head in heads.items() for field, x in head._asdict().items()}
            write_arrays(draft / HEADS_FILE, **arrays)
            seal(draft)
        return values

    def heads(self, classifier: Path) -> dict[str, LinearHead]:
        """By task what `fit` saved. classifier: the folder of its fold."""
        folder, found = present_folder(classifier), {}
        check_seal(folder, HEADS_FILE, remedy=REMEDY)
        for task in self._finetuning.config.tasks:
            fields = (f"{task.name}/{field}" for field in LinearHead._fields)
            found[task.name] = LinearHead(*read_arrays(folder / HEADS_FILE, *fields, remedy=REMEDY).values())
        return found

    def outputs(self, variant: str, classifier: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
        """By task float32 [rows, C]: what its head says of these clips. classifier: the folder of its fold."""
        features_ND = self.features(variant, rows)
        return {task: head.logits(features_ND) for task, head in self.heads(classifier).items()}


def looking(finetuning: Finetuning, variant: str, encoder: AVEncoder) -> LayerStatistics:
    """What looks at clips with this encoder, of the network of a variant, by the one program that there is for it."""
    if (network := f"{variant} {fingerprint(as_dict(encoder.config))}") not in finetuning.looks:
        finetuning.looks[network] = LayerStatistics(finetuning.run, encoder)
    return finetuning.looks[network].of(encoder)


def fit_heads(
    finetuning: Finetuning, number: int, features_ND: np.ndarray
) -> tuple[dict[str, LinearHead], dict[str, float]]:
    """A regression for each task on a fold's training clips; their penalty, and metrics on the validation clips.

    The penalty, one for all tasks, is the one that is best by `select_by` on the validation clips. features_ND: of the
    training clips and then the validation clips.
    """
    fold, by = finetuning.fold(number), finetuning.best_by
    train_ND, validation_ND = np.split(features_ND, [len(fold.train)])
    labels = {name: of_table[fold.train] for name, of_table in finetuning.labels.items()}
    best: tuple[dict[str, LinearHead], dict[str, float]] | None = None
    for inverse_penalty in INVERSE_PENALTIES:
        heads = {
            task.name: fit_head(train_ND[known], labels[task.name][known], task, inverse_penalty)
            for task in finetuning.config.tasks
            for known in [has_label(labels[task.name])]
        }
        outputs = {name: head.logits(validation_ND) for name, head in heads.items()}
        metrics = finetuning.metrics(outputs, fold.validation)
        values = {f"validation/{name}": value for name, value in metrics.items()}
        if best is None or is_better(values[by.metric], best[1][by.metric], by.better):
            best = heads, {"inverse_penalty": inverse_penalty, **values}
    return best
