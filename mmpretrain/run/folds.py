"""The labelled clips of a recipe, the folds that its protocol deals out, and what of them pretraining leaves out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpretrain.config import DataConfig, RunConfig
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.labels import KNOWN_OF_ALL, OF_FRAMES, has_label, task_labels
from mmpretrain.data.manifest import SEEN_FILE
from mmpretrain.data.unreadable import Unreadable
from mmpretrain.evaluation.protocols import Fold, get_protocol
from mmpretrain.observe.progress import log
from mmpretrain.run.layout import folds_of

OF_FOLD = "{fold}"  # in the path of an encoder that a round takes: the number of the fold that the run is for


def labelled_clips(
    config: RunConfig,
    unreadable: Unreadable | None = None,
    *,
    modalities: Sequence[str] = (),
    texts: bool = False,
) -> tuple[ClipTable, ClipTable]:
    """The clips that the recipe's `finetune` part is about, those without a label among them, and those left out.

    The latter have none of what it asks for: a modality of the model, a text, a track. modalities: that the network
    takes; none: those of the recipe's model. texts: they are read whatever the recipe says. unreadable: as in
    `open_clips`.
    Raises ValueError where no clip has any of it.
    """
    asked, modalities = config.finetune, modalities or config.model.modalities
    table = open_clips(asked.corpora or config.data.corpora, unreadable=unreadable)
    has_N = np.any([table.has_any(modalities), *map(table.has, asked.tracks)], axis=0)
    if (texts or asked.text is not None) and table.label_kinds.get("text") == "text":
        has_N |= table.label("text") > 0
    if not has_N.any():
        table.require(modalities)  # says why it cannot be
    return table.select(has_N), table.select(~has_N)


def fold_of(config: RunConfig, table: ClipTable, number: int, labels: np.ndarray | None = None) -> Fold:
    """Fold `number` of those clips that have a label of the first task.

    labels: those of the table, where the caller has them. Raises ValueError where none has one, or the protocol cannot
    deal them out.
    """
    main, protocol = config.finetune.tasks[0], get_protocol(config.finetune.protocol)
    labelled = np.flatnonzero(has_label(task_labels(table, main) if labels is None else labels))
    if not len(labelled):
        among = f" among {', '.join(sorted(main.classes))}" if main.classes else ""
        raise ValueError(
            f"protocol `{protocol.name}`: none of the {len(table)} clips has a label {main.column or main.name!r}"
            f"{among}; fine-tune on a labelled corpus"
        )
    return protocol.deal(table.index, number, labelled)


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
    if not all(1 <= fold <= num_folds for fold in excluded):
        raise ValueError(
            f"data.exclude_folds={excluded}; it must be folds of finetune.protocol={name!r}, 1 to {num_folds}"
        )
    if left_in := sorted(set(folds_of(config.finetune)) - set(excluded)):
        raise ValueError(
            f"data.exclude_folds={excluded} leaves in the test speakers of fold {left_in[0]}, which finetune.folds="
            f"{config.finetune.folds} tests as well; give both the same folds (a run each, with a workdir of its own, "
            "for folds that are pretrained apart), or data.exclude_folds=() to pretrain on all"
        )


def folds_left_out(protocol: str, number: int) -> tuple[int, ...]:
    """The `data.exclude_folds` that leave out whom fold `number` tests and whom it chooses by, who are those that the
    next fold tests; of a protocol of one fold that one says both (`excluded_data`)."""
    return tuple(sorted({number, number % get_protocol(protocol).num_folds + 1}))


def config_of_fold(config: RunConfig, number: int) -> RunConfig:
    """The recipe for fold `number` alone, in a folder of that of `config`: its rounds have not seen its speakers.

    They leave out those that the fold tests and those that it chooses by (`folds_left_out`). Encoders that its rounds
    take may be another for each fold: `OF_FOLD` in their paths is its number.
    """
    config = copy.deepcopy(config)
    config.workdir = str(Path(config.workdir) / f"fold{number}")
    config.data.exclude_folds = folds_left_out(config.finetune.protocol, number)
    config.finetune.folds = (number,)
    config.finetune.encoder = config.finetune.encoder.replace(OF_FOLD, str(number))
    for round_ in config.rounds:
        round_.encoder, round_.init = (
            path.replace(OF_FOLD, str(number)) for path in (round_.encoder, round_.init)
        )  # fmt: skip
    return config


def check_manifests(data: DataConfig, tested: TrainingData | None) -> None:
    """Raises ValueError naming who of `tested` was seen by the embedding that made a manifest of `data.corpora`."""
    for i, corpus in enumerate(data.corpora if tested else ()):
        if not corpus.retrieved or not (Path(corpus.retrieved) / SEEN_FILE).exists():
            continue
        seen = TrainingData.read(Path(corpus.retrieved) / SEEN_FILE).speakers
        if both := sorted({who for name in tested.speakers for who in tested.speakers[name] & seen.get(name, set())}):
            raise ValueError(
                f"data.corpora[{i}].retrieved={corpus.retrieved!r}: its embedding was trained on {', '.join(both)}, "
                f"whom data.exclude_folds={data.exclude_folds} keeps for testing; give the manifest of that fold"
            )


def excluded_data(config: RunConfig) -> TrainingData | None:
    """What pretraining must not see: all clips of the speakers that the folds of `data.exclude_folds` test.

    Of a protocol of one fold those that it chooses by too, since no other fold tests them, unless they train as well.
    Without labelled clips there is no test part, which a line in the log says; then, and without such folds, None.
    Raises ValueError where the protocol cannot deal out the labelled clips that there are.
    """
    folds = config.data.exclude_folds
    if not folds:
        return None
    (table, _), main = labelled_clips(config), config.finetune.tasks[0]
    column = main.column or main.name
    known = main.kind in OF_FRAMES or column in {*table.label_kinds, *KNOWN_OF_ALL}
    labels = task_labels(table, main) if known else np.zeros(0)
    if not has_label(labels).any():
        log(f"data.exclude_folds={folds}: no clip has a label of {column}, so there is no test clip to leave out")
        return None
    protocol = get_protocol(config.finetune.protocol)
    chosen_by = protocol.num_folds == 1 and "validation" not in protocol.shared
    try:
        of_folds = [fold_of(config, table, number, labels) for number in folds]
        tested = np.concatenate([rows for f in of_folds for rows in (f.test, *[f.validation] * chosen_by)])
    except ValueError as error:
        raise ValueError(
            f"data.exclude_folds={folds}: {error}; or set data.exclude_folds=() to pretrain on all clips"
        ) from error
    theirs = table.select(TrainingData.of(table.select(tested)).shares_with(table))
    data = TrainingData.of(theirs)
    people, who = sum(map(len, data.speakers.values())), "test and validation" if chosen_by else "test"
    log(
        f"data.exclude_folds={folds}: the {people} {who} speakers of {config.finetune.protocol}, with {len(theirs)} "
        "clips of its corpora, are left out of pretraining"
    )
    return data
