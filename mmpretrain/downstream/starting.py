"""The training of a fold from its very start, which may be the linear classifier on the encoder as it is."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.frozen import Frozen, fit_heads, looking
from mmpretrain.evaluation.linear import LinearHead
from mmpretrain.models.heads import StatisticsHead
from mmpretrain.parallel.mesh import whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.layout import PRETRAINED
from mmpretrain.train.step import TrainState
from mmpretrain.train.training import Training


def training_of(finetuning: Finetuning, variant: str, number: int) -> Training:
    """What decides every step of a fold; with `finetune.head="frozen_linear"` its heads start as fitted ones.

    Those are regressions on what the layers of the fold's own first encoder say of its training clips, as the
    classifier `frozen_linear` fits them: before the first step the network answers as that classifier does.
    """
    training = finetuning.training(variant, number)
    if finetuning.config.head != "frozen_linear":
        return training

    def initialize(state: TrainState) -> TrainState:
        state = training.initialize(state)
        features_ND = _features(finetuning, variant, number, training, state)

        def fit() -> dict[str, dict[str, list]]:
            heads, _ = fit_heads(finetuning, number, features_ND)
            return {name: {k: x.tolist() for k, x in head._asdict().items()} for name, head in heads.items()}

        model = training.trainer.model(state)
        for name, arrays in on_main(fit).items():
            put_head(model.heads[name], LinearHead(**{k: np.array(x) for k, x in arrays.items()}))
        return training.trainer.with_model(state, model)

    return dataclasses.replace(training, initialize=initialize)


def put_head(module: StatisticsHead, head: LinearHead) -> None:
    """Makes the module say what the fitted head says."""
    places = (module.mean, module.scale, module.out.kernel, module.out.bias)
    for place, value in zip(places, head, strict=True):
        place.set_value(jax.device_put(np.asarray(value, np.float32), place.get_value().sharding))


def _features(finetuning: Finetuning, variant: str, number: int, training: Training, state: TrainState) -> np.ndarray:
    """float32 [training and validation clips, D]: of each layer the means, and then the deviations."""
    fold, run = finetuning.fold(number), finetuning.run
    rows = np.concatenate([fold.train, fold.validation])
    if variant == PRETRAINED:
        return Frozen(finetuning).features(variant, rows)
    encoder = training.trainer.model(whole(state, run.mesh)).encoder
    return looking(finetuning, variant, encoder)(finetuning.table.select(rows)).reshape(len(rows), -1)
