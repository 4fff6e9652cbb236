"""Labelled tasks on clips or on their frames, several at once if wanted: fine-tuning of a pretrained encoder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import FinetuneConfig, ModelConfig, TaskConfig
from mmpretrain.models.adapters import attach, merge
from mmpretrain.models.fused_heads import FUSED_HEADS
from mmpretrain.models.heads import MultiTaskModel
from mmpretrain.models.late import LATE
from mmpretrain.models.streams import Beside, Heard, mean_of, rows_of, stream_of
from mmpretrain.models.task_heads import fused_head, make_head
from mmpretrain.objectives.base import Better, Objective, Sums, total
from mmpretrain.objectives.masking import span_mask
from mmpretrain.objectives.reversal import ramp_of, reversals_of
from mmpretrain.objectives.task_losses import TASK_LOSSES, Asked
from mmpretrain.randomness import named
from mmpretrain.records import Batch


def weights_of(task: TaskConfig) -> str:
    """The name in `Batch.labels` of what each clip counts in the loss of a task, where not all count alike."""
    return f"{task.name}/weight"


class Changes(NamedTuple):
    """Augmentation: stretches that are hidden, bool [B, T] each; how much of a clip is its own, [B], the rest being
    the one before it in the batch (all of it where the two have no modality in common); by modality whether it is left,
    bool [B] (None: all are); how much of reversed gradients there is yet, [B] (None: nothing is reversed)."""

    audio_BT: jax.Array
    video_BT: jax.Array
    own_B: jax.Array
    left: dict[str, jax.Array] | None = None
    ramp_B: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Supervised(Objective):
    """The losses of all tasks, each with its weight, summed over the clips that have a label of any.

    beside: what is heard beside the encoder, such as a text.
    """

    better: ClassVar[Mapping[str, Better]] = {"loss": "lower"}

    model: ModelConfig
    finetune: FinetuneConfig
    lora_rank: int = 0
    beside: tuple[Beside, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """The loss, and how often each classifier is right."""
        return "loss", *(f"{task.name}/accuracy" for task in self.finetune.tasks)

    def make_model(self, rngs: nnx.Rngs) -> MultiTaskModel:
        """The encoder, with adapters of `lora_rank` beside its layers where that is not 0, and a head for each task."""
        make_heads = {task.name: functools.partial(self._make_head, task) for task in self.finetune.tasks}
        model = MultiTaskModel(self.model, make_heads, rngs=rngs)
        if self.lora_rank:
            attach(model.encoder.transformer, self.lora_rank, rngs=rngs)
        if self.finetune.fusion == "early" and self.beside:
            model.early = rows_of(self.model, self.beside, rngs=rngs, starts_at_zero=True)
        return model

    @property
    def _late(self) -> bool:
        return self.finetune.fusion.startswith(LATE)

    @property
    def _apart(self) -> bool:
        """Whether each modality goes through the encoder alone."""
        return self._late or (self.finetune.fusion in FUSED_HEADS and not self.beside)

    def _make_head(self, task: TaskConfig, rngs: nnx.Rngs) -> nnx.Module:
        if self.finetune.head == "frozen_linear":
            return make_head(self.model, task, self.finetune.head, rngs)

        def make(model: ModelConfig) -> nnx.Module:
            return TASK_LOSSES[task.kind].make_head(model, task, rngs)

        if self.finetune.fusion == "early":
            return make(self.model)
        return fused_head(make, self.model, task, self.finetune.fusion, self.beside, rngs)

    def draw(self, keys_B: jax.Array, batch: Batch, *, step: jax.Array, train: bool) -> Changes:
        """Nothing is hidden unless in training, and where fine-tuning has masks at all."""
        masking, valid, mixup = self.finetune.masking, batch.valid_BT, self.finetune.mixup
        nothing, own_B = jnp.zeros_like(valid), jnp.ones(len(valid))
        if not train:
            return Changes(nothing, nothing, own_B)
        left = (
            left_of(batch.present, keys_B, self.finetune.modality_dropout) if self.finetune.modality_dropout else None
        )
        if mixup > 0:
            share_B = jax.vmap(lambda key: jax.random.beta(key, mixup, mixup))(named(keys_B, "mixup"))
            heard = _shown(batch, left).present.values()
            both_B = jnp.stack([has_B & _before(has_B) for has_B in heard]).any(0)  # else there is nothing to mix
            own_B = jnp.where(both_B, jnp.maximum(share_B, 1 - share_B), 1)
        ramp_B = ramp_of(self.finetune.tasks, step, self.finetune.num_steps, len(valid))
        if masking is None:
            return Changes(nothing, nothing, own_B, left, ramp_B)
        audio_keys, video_keys = named(keys_B, "audio mask"), named(keys_B, "video mask")
        return Changes(
            span_mask(audio_keys, valid, prob=masking.audio_prob, span_frames=masking.audio_span_frames),
            span_mask(video_keys, valid, prob=masking.video_prob, span_frames=masking.video_span_frames),
            own_B,
            left,
            ramp_B,
        )

    def loss(
        self,
        model: MultiTaskModel,
        batch: Batch,
        draws: Changes,
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
        mixed = train and self.finetune.mixup > 0
        for task in self.finetune.tasks:
            of_clip, has_label, values = self._loss(task, outputs, batch.labels, smoothing)
            if mixed:
                labels = jax.tree.map(_before, batch.labels)
                other, other_has, _ = self._loss(task, outputs, labels, smoothing)
                of_clip = jnp.where(other_has, draws.own_B * of_clip + (1 - draws.own_B) * other, of_clip)
            loss += task.weight * total(of_clip, has_label)
            any_label |= has_label
            count = total(1, has_label)
            metrics |= {f"{task.name}/{name}": (total(value, has_label), count) for name, value in values.items()}
        return Sums(loss, total(1, any_label), metrics)

    def _loss(
        self, task: TaskConfig, outputs: Mapping[str, jax.Array], labels: Mapping[str, jax.Array], smoothing: float
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """What `TaskLoss.loss` returns, the loss times what each clip counts.

        Of late fusion it is the mean of the losses of the modalities that a clip has.
        """
        loss, asked, of_task = TASK_LOSSES[task.kind].loss, Asked(task, smoothing), labels[task.name]
        of_clip, has_label, values = loss(outputs[task.name], of_task, asked)
        if self._late:
            losses, counted = [], []
            for m, there_B in enumerate(outputs[f"{task.name}/there"].T):
                there, none = there_B.reshape(-1, *[1] * (of_task.ndim - 1)), jnp.asarray(-1, of_task.dtype)
                none = jnp.nan if jnp.issubdtype(of_task.dtype, jnp.floating) else none
                each_B, known_B, _ = loss(outputs[f"{task.name}/members"][:, m], jnp.where(there, of_task, none), asked)
                losses.append(jnp.where(known_B, each_B, 0))
                counted.append(known_B)
            of_clip = sum(losses) / jnp.maximum(jnp.stack(counted).sum(0), 1)
        if (weight_B := labels.get(weights_of(task))) is not None:
            of_clip *= weight_B
        return of_clip, has_label, values

    def outputs(
        self,
        model: MultiTaskModel,
        batch: Batch,
        changes: Changes | None = None,
        key: jax.Array | None = None,
        *,
        train: bool = False,
        shown: Mapping[str, jax.Array] | None = None,
    ) -> dict[str, jax.Array]:
        """By task, what its head says, and as TASK/NAME what it says aside.

        Masked frames of a stream read 0: the mean row of sound, the mean grey. shown: by modality, bool, whether it
        is, of clips that have it; None: all are.
        """
        batch = _shown(_shown(batch, shown), changes.left if changes is not None else None)
        if self.lora_rank:
            merge(model.encoder.transformer)  # of a copy: who hands in the model has its weights in the state
        prepared = model.encoder.prepare(batch.inputs, batch.valid_BT)
        if changes is not None:
            prepared = {name: self._changed(name, x, batch, changes) for name, x in prepared.items()}
        heard = self._heard(batch)
        streams = model.encoder.streams(prepared, batch.valid_BT, heard.present, train=train)
        if self._apart:
            x = model.encoder.fuse_apart(streams, heard.present, key)
        else:
            x, _ = model.encoder.fuse(streams, heard.present, key)
        if self.finetune.fusion == "early":
            for name, _, of_frames in self.beside:
                stream = heard.beside[name]
                rows_BLD = model.early[name](stream)
                x += (rows_BLD if of_frames else mean_of(rows_BLD, stream.valid_BL)[:, None]).astype(x.dtype)
        reversals = reversals_of(self.finetune.tasks, None if changes is None else changes.ramp_B)
        others = [heard] * (self.finetune.fusion != "early")
        return model(x, batch.valid_BT, key, *others, reversals=reversals)

    def _heard(self, batch: Batch) -> Heard:
        beside = {name: stream_of(batch.inputs[name], batch.present[name]) for name, *_ in self.beside}
        return Heard(beside, {name: batch.present[name] for name in self.model.modalities})

    def _changed(self, name: str, x: jax.Array, batch: Batch, changes: Changes) -> jax.Array:
        """The prepared input of a modality, mixed, and then with stretches hidden, which read 0.

        A clip without the modality, or behind one without it, is not mixed in it; one behind a shorter clip is, from
        where that ends, a share of itself.
        """

        def each(of_clips: jax.Array) -> jax.Array:
            return of_clips.reshape(*of_clips.shape, *[1] * (x.ndim - of_clips.ndim))

        if self.finetune.mixup > 0:
            both_B = batch.present[name] & _before(batch.present[name])
            own_B = each(jnp.where(both_B, changes.own_B, 1))
            x = jnp.where(each(batch.valid_BT), own_B * x + (1 - own_B) * _before(x), x)
        hidden = {"audio": changes.audio_BT, "video": changes.video_BT}
        return jnp.where(each(hidden[name]), 0, x) if name in hidden and self.finetune.masking is not None else x


def _shown(batch: Batch, some: Mapping[str, jax.Array] | None) -> Batch:
    """As if clips had no modality but those of `some`, by name bool [B] or []; None: as it is."""
    if some is None:
        return batch
    return batch._replace(present={name: has_B & some[name] for name, has_B in batch.present.items()})


def left_of(present: Mapping[str, jax.Array], keys_B: jax.Array, prob: float) -> dict[str, jax.Array]:
    """By modality, bool [B], whether it is left: each with probability 1 - prob, and at least one that is there."""
    names = tuple(present)
    chance_MB = jnp.stack([jax.vmap(jax.random.uniform)(named(keys_B, f"modality {name}")) for name in names])
    chance_MB = jnp.where(jnp.stack([present[name] for name in names]), chance_MB, -1)
    left_MB = (chance_MB >= prob) | (chance_MB == chance_MB.max(0))
    return dict(zip(names, left_MB, strict=True))


def _before(of_clips: jax.Array) -> jax.Array:
    """Of every clip what is of the one before it in the batch; of the first that of the last."""
    return jnp.roll(of_clips, 1, axis=0)
