"""The labelled clips of a recipe, the folds that its protocol deals out, and what of them pretraining leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpretrain.config import RunConfig
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.data.exposure import TrainingData
from mmpretrain.evaluation.protocols import Fold, get_protocol
from mmpretrain.observe.progress import log
from mmpretrain.run.layout import folds_of


def labelled_clips(config: RunConfig) -> ClipTable:
    """The clips that the recipe's `finetune` part is about, those without a label among them."""
    return open_clips(config.finetune.corpora or config.data.corpora).require(config.model.modalities)


def fold_of(config: RunConfig, table: ClipTable, number: int) -> Fold:
    """Fold `number` of those clips."""
    main = config.finetune.tasks[0]
    protocol = get_protocol(config.finetune.protocol)
    return protocol.fold(table.index, number, main.classes, column=main.column or main.name)


def check_excluded_folds(config: RunConfig) -> None:
    """Raises ValueError if `data.exclude_folds` is not of the protocol, or leaves a fold in that is to be tested."""
    excluded = config.data.exclude_folds
    if not excluded:
        return
    if config.finetune is None:
        raise ValueError(
            f"data.exclude_folds={excluded}, but the recipe has no finetune part, whose protocol has the folds; add "
            "one, or name the speakers in data.exclude_speakers"
        )
    name, num_folds = config.finetune.protocol, get_protocol(config.finetune.protocol).num_folds
    if len(set(excluded)) < len(excluded) or not all(1 <= fold <= num_folds for fold in excluded):
        raise ValueError(
            f"data.exclude_folds={excluded}; it must be folds of finetune.protocol={name!r}, 1 to {num_folds}, each "
            "once"
        )
    if left_in := sorted(set(folds_of(config.finetune)) - set(excluded)):
        raise ValueError(
            f"data.exclude_folds={excluded} leaves in the test speakers of fold {left_in[0]}, which finetune.folds="
            f"{config.finetune.folds} tests as well; give both the same folds (a run each, with a workdir of its own, "
            "for folds that are pretrained apart), or data.exclude_folds=() to pretrain on all"
        )


def left_out_of_pretraining(config: RunConfig, tables: Sequence[ClipTable]) -> list[np.ndarray]:
    """For each table bool [N]: which clips are, or are of the speakers of, the test part of `data.exclude_folds`.

    That goes by content too: a copy of a clip is left out under any name. Without labelled clips there is no test part,
    which a line in the log says. Raises ValueError where the protocol cannot deal out those that there are.
    """
    excluded = config.data.exclude_folds
    table, main = labelled_clips(config), config.finetune.tasks[0]
    column = main.column or main.name
    if not (column in table.label_kinds and set(table.label(column).kinds()) & set(main.classes)):
        log(f"data.exclude_folds={excluded}: no clip has a label of {column}, so there is no test clip to leave out")
        return [np.zeros(len(each), bool) for each in tables]
    try:
        tested = np.concatenate([fold_of(config, table, number).test for number in excluded])
    except ValueError as error:
        raise ValueError(
            f"data.exclude_folds={excluded}: {error}; or set data.exclude_folds=() to pretrain on all clips"
        ) from error
    theirs = TrainingData.of(table.select(tested)).shares_with(table)  # as if trained on
    test = TrainingData.of(table.select(theirs))
    left_out = [test.shares_with(each) for each in tables]
    speakers = sum(map(len, test.speakers.values()))
    log(
        f"data.exclude_folds={excluded}: {sum(map(np.count_nonzero, left_out))} clips are left out of pretraining, all "
        f"of the {speakers} test speakers of {config.finetune.protocol}"
    )
    return left_out
