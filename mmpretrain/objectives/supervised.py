"""Labelled tasks on clips or on their frames, several at once if wanted: fine-tuning of a pretrained encoder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import FinetuneConfig, ModelConfig, TaskConfig
from mmpretrain.models.heads import ClipHead, FrameHead, MultiTaskModel, StatisticsHead
from mmpretrain.objectives.base import Better, Objective, Sums, total
from mmpretrain.objectives.masking import span_mask
from mmpretrain.randomness import named
from mmpretrain.records import Batch


class InputMasks(NamedTuple):
    """Stretches hidden as augmentation: bool [B, T] each."""

    audio_BT: jax.Array
    video_BT: jax.Array


class TaskLoss(NamedTuple):
    """How labels of a kind are learned.

    make_head(model, task, rngs): a module called as `ClipHead` is. loss(output, labels, smoothing): for each clip its
    loss, whether it has a label, and by name the metrics, [B] each; what is said of clips without a label is not used.
    """

    make_head: Callable[[ModelConfig, TaskConfig, nnx.Rngs], nnx.Module]
    loss: Callable[[jax.Array, jax.Array, float], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]


def _classifier(model: ModelConfig, task: TaskConfig, rngs: nnx.Rngs) -> ClipHead:
    return ClipHead(model, len(task.classes), rngs=rngs)


def _cross_entropy(
    logits_BC: jax.Array, label_B: jax.Array, smoothing: float
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """label_B: int32, -1 where there is none; of frames [B, T]. `nll` is the loss without smoothing."""
    label = jnp.maximum(label_B, 0)
    log_probs = jax.nn.log_softmax(logits_BC)
    nll = -jnp.take_along_axis(log_probs, label[..., None], axis=-1)[..., 0]
    loss = (1 - smoothing) * nll - smoothing * log_probs.mean(-1)
    return loss, label_B >= 0, {"nll": nll, "accuracy": logits_BC.argmax(-1) == label}


def _frame_classifier(model: ModelConfig, task: TaskConfig, rngs: nnx.Rngs) -> FrameHead:
    return FrameHead(model, len(task.classes), rngs=rngs)


def _frame_cross_entropy(
    logits_BTC: jax.Array, label_BT: jax.Array, smoothing: float
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """The mean over a clip's labelled frames. label_BT: int32, -1 where there is none, padding included."""
    of_frame, known_BT, values = _cross_entropy(logits_BTC, label_BT, smoothing)

    def mean(x_BT: jax.Array) -> jax.Array:
        return jnp.where(known_BT, x_BT, 0).sum(1) / jnp.maximum(known_BT.sum(1), 1)

    return mean(of_frame), known_BT.any(1), {name: mean(x_BT) for name, x_BT in values.items()}


TASK_LOSSES: dict[str, TaskLoss] = {
    "class": TaskLoss(_classifier, _cross_entropy),
    "frames": TaskLoss(_frame_classifier, _frame_cross_entropy),
}


@dataclasses.dataclass(frozen=True)
class Supervised(Objective):
    """The losses of all tasks, each with its weight, summed over the clips that have a label of any."""

    better: ClassVar[Mapping[str, Better]] = {"loss": "lower"}

    model: ModelConfig
    finetune: FinetuneConfig

    @property
    def shown(self) -> tuple[str, ...]:
        """The loss, and how often each classifier is right."""
        return "loss", *(f"{task.name}/accuracy" for task in self.finetune.tasks)

    def make_model(self, rngs: nnx.Rngs) -> MultiTaskModel:
        """The encoder and a head for each task."""
        make_heads = {task.name: functools.partial(self._make_head, task) for task in self.finetune.tasks}
        return MultiTaskModel(self.model, make_heads, rngs=rngs)

    def _make_head(self, task: TaskConfig, rngs: nnx.Rngs) -> nnx.Module:
        if self.finetune.head == "frozen_linear":
            return StatisticsHead(self.model, len(task.classes), rngs=rngs)
        return TASK_LOSSES[task.kind].make_head(self.model, task, rngs)

    def draw(self, keys_B: jax.Array, batch: Batch, *, step: jax.Array, train: bool) -> InputMasks:
        """Nothing is hidden unless in training, and where fine-tuning has masks at all."""
        del step
        masking, valid = self.finetune.masking, batch.valid_BT
        if masking is None or not train:
            return InputMasks(jnp.zeros_like(valid), jnp.zeros_like(valid))
        audio_keys, video_keys = named(keys_B, "audio mask"), named(keys_B, "video mask")
        return InputMasks(
            span_mask(audio_keys, valid, prob=masking.audio_prob, span_frames=masking.audio_span_frames),
            span_mask(video_keys, valid, prob=masking.video_prob, span_frames=masking.video_span_frames),
        )

    def loss(
        self,
        model: MultiTaskModel,
        batch: Batch,
        draws: InputMasks,
        key: jax.Array | None,
        *,
        train: bool,
        counts: None = None,
    ) -> Sums:
        """Smoothed in training, plain in evaluation. Metrics are called TASK/METRIC."""
        del counts  # the loss of a clip depends on no other clip
        outputs = self.outputs(model, batch, draws if train else None, key, train=train)
        smoothing = self.finetune.label_smoothing if train else 0.0
        loss, any_label, metrics = jnp.zeros([]), jnp.zeros(len(batch.valid_BT), bool), {}
        for task in self.finetune.tasks:
            of_clip, has_label, values = TASK_LOSSES[task.kind].loss(
                outputs[task.name], batch.labels[task.name], smoothing
            )
            loss += task.weight * total(of_clip, has_label)
            any_label |= has_label
            count = total(1, has_label)
            metrics |= {f"{task.name}/{name}": (total(value, has_label), count) for name, value in values.items()}
        return Sums(loss, total(1, any_label), metrics)

    def outputs(
        self,
        model: MultiTaskModel,
        batch: Batch,
        masks: InputMasks | None = None,
        key: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> dict[str, jax.Array]:
        """By task, what its head says. Masked frames of a stream read 0: the mean row of sound, the mean grey."""
        prepared = model.encoder.prepare(batch.inputs, batch.valid_BT)
        for name, mask_BT in (("audio", masks.audio_BT), ("video", masks.video_BT)) if masks is not None else ():
            if name in prepared:
                x = prepared[name]
                prepared[name] = jnp.where(mask_BT.reshape(*mask_BT.shape, *[1] * (x.ndim - 2)), 0, x)
        x, _ = model.encoder.embed(prepared, batch.valid_BT, batch.present, key, train=train)
        return model(x, batch.valid_BT, key)
