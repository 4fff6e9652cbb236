"""Masked cluster prediction and labelled tasks at once, such as an emotion, and whom or what corpus to forget.

Our reading of the objectives of SAAML / AW-HuBERT (Tran et al., ACM MM 2023), of which no code is public:
"emotion-aware" is a task that is learned, "domain-invariant" one whose gradient is reversed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig, RoundConfig
from mmpretrain.models.heads import ClusterAndTaskModel, ask
from mmpretrain.objectives.base import Objective, Sums, total
from mmpretrain.objectives.masked_prediction import Counts, MaskedPrediction, Masks, Prediction
from mmpretrain.objectives.reversal import ramp_of, reversals_of
from mmpretrain.objectives.task_losses import TASK_LOSSES, Asked
from mmpretrain.records import Batch


class Draws(NamedTuple):
    """masks: of masked prediction. ramp_B: how much of reversed gradients there is yet; None: nothing is reversed."""

    masks: Masks
    ramp_B: jax.Array | None


class TaskCounts(NamedTuple):
    """Of a whole batch: what masked prediction counts, and by task float32, how many clips have a loss of it."""

    masked: Counts
    clips: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MultitaskPrediction(Objective):
    """The loss of `MaskedPrediction` and, times its weight, the mean loss of each task over the clips that have one.

    A task's head hears all layers of the clip with what is masked hidden. The loss that is told holds that of reversed
    tasks too, which the encoder makes larger: `masked_loss` and TASK/loss tell them apart.
    """

    better: ClassVar = MaskedPrediction.better

    model: ModelConfig
    round: RoundConfig

    @property
    def shown(self) -> tuple[str, ...]:
        """As of masked prediction, and how often each classifier is right."""
        return *MaskedPrediction.shown, *(f"{t.name}/accuracy" for t in self.round.tasks if t.kind == "class")

    @functools.cached_property
    def masked(self) -> MaskedPrediction:
        """The other half of the objective."""
        return MaskedPrediction(self.model, self.round)

    def make_model(self, rngs: nnx.Rngs) -> ClusterAndTaskModel:
        num_classes = [targets.num_clusters + self.round.reference.dead_classes for targets in self.round.targets]
        make_heads = {
            task.name: functools.partial(TASK_LOSSES[task.kind].make_head, self.model, task)
            for task in self.round.tasks
        }
        return ClusterAndTaskModel(self.model, num_classes, self.round.masking.kind, make_heads, rngs=rngs)

    def draw(self, keys_B: jax.Array, batch: Batch, *, step: jax.Array, train: bool) -> Draws:
        """Nothing is reversed in evaluation, which has no gradient."""
        masks = self.masked.draw(keys_B, batch, step=step, train=train)
        ramp_B = ramp_of(self.round.tasks, step, self.round.num_steps, len(keys_B)) if train else None
        return Draws(masks, ramp_B)

    def counts(self, batch: Batch, draws: Draws) -> TaskCounts:
        """Of tasks whose loss of a clip depends on no other clip: which have a label."""
        clips = {task.name: total(1, batch.labels[task.name] >= 0) for task in self.round.tasks}
        return TaskCounts(self.masked.counts(batch, draws.masks), clips)

    def loss(
        self,
        model: ClusterAndTaskModel,
        batch: Batch,
        draws: Draws,
        key: jax.Array | None,
        *,
        train: bool,
        counts: TaskCounts | None = None,
    ) -> Sums:
        """The sums of both halves. As the feature penalty does, a task adds its mean times the batch's weight."""
        x_BTD, fused, *asked = self.masked.embed(model, batch, draws.masks, key, train=train)
        out_BTD, layers_LBTD = model.encoder.with_layers(x_BTD, asked[-1], key)
        prediction = Prediction(model.head(out_BTD), fused, *asked, draws.masks.use)
        sums = self.masked.score(prediction, None if counts is None else counts.masked)
        said = ask(
            model.heads, [task.name for task in self.round.tasks], layers_LBTD.astype(jnp.float32), asked[-1], key,
            reversals=reversals_of(self.round.tasks, draws.ramp_B),
        )  # fmt: skip
        weight = sums.weight if counts is None else counts.masked.weight
        loss, metrics = sums.loss, dict(sums.metrics)
        for task in self.round.tasks:
            label_B = batch.labels[task.name]
            loss_B, has_B, values = TASK_LOSSES[task.kind].loss(said[task.name], label_B, Asked(task))
            own = total(1, has_B)
            whole = own if counts is None or task.kind == "embedding" else counts.clips[task.name]
            of_task = total(loss_B, has_B)
            loss += task.weight * of_task / jnp.maximum(whole, 1) * weight
            metrics |= {f"{task.name}/{name}": (total(x, has_B), own) for name, x in {"loss": loss_B, **values}.items()}
        if draws.ramp_B is not None:
            metrics["reversal_ramp"] = (draws.ramp_B.sum(), jnp.float32(len(draws.ramp_B)))
        return sums._replace(loss=loss, metrics=metrics)

    def summarize(self, sums: Sums) -> dict[str, jax.Array]:
        """As of masked prediction; the loss holds those of the tasks, each over its own clips."""
        metrics = self.masked.summarize(sums)
        of_tasks = sum(task.weight * metrics[f"{task.name}/loss"] for task in self.round.tasks)
        return metrics | {"loss": metrics["loss"] + (sums.weight > 0) * of_tasks}
