"""Classification of whole clips: emotion fine-tuning of a pretrained encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import FinetuneConfig, ModelConfig
from mmpretrain.models.heads import ClipClassifier
from mmpretrain.objectives.base import Better, Objective, Sums
from mmpretrain.objectives.masking import span_mask
from mmpretrain.records import Batch


class InputMasks(NamedTuple):
    """Stretches hidden as augmentation: bool [B, T] each."""

    audio_BT: jax.Array
    video_BT: jax.Array


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy of one label a clip. Rows with label -1 count for nothing."""

    better: ClassVar[Mapping[str, Better]] = {"loss": "lower", "nll": "lower", "accuracy": "higher"}
    shown: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    model: ModelConfig
    finetune: FinetuneConfig

    def make_model(self, rngs: nnx.Rngs) -> ClipClassifier:
        return ClipClassifier(self.model, len(self.finetune.classes), rngs=rngs)

    def draw(self, key: jax.Array, batch: Batch, *, step: jax.Array, train: bool) -> InputMasks:
        """Nothing is hidden unless in training, and where fine-tuning has masks at all."""
        del step
        masking, valid = self.finetune.masking, batch.valid_BT
        if masking is None or not train:
            return InputMasks(jnp.zeros_like(valid), jnp.zeros_like(valid))
        audio_key, video_key = jax.random.split(key)
        return InputMasks(
            span_mask(audio_key, valid, prob=masking.audio_prob, span_frames=masking.audio_span_frames),
            span_mask(video_key, valid, prob=masking.video_prob, span_frames=masking.video_span_frames),
        )

    def loss(
        self,
        model: ClipClassifier,
        batch: Batch,
        draws: InputMasks,
        key: jax.Array | None,
        *,
        train: bool,
        counts: None = None,
    ) -> Sums:
        """The smoothed loss in training, the plain one in evaluation; `nll` is always the plain one."""
        del counts  # the loss of a clip depends on no other clip
        logits = self.logits(model, batch, draws if train else None, key, train=train)
        label_B = batch.labels["emotion"]
        labelled, label = label_B >= 0, jnp.maximum(label_B, 0)
        log_probs = jax.nn.log_softmax(logits)
        smooth = self.finetune.label_smoothing if train else 0.0
        nll = -jnp.take_along_axis(log_probs, label[:, None], axis=1)[:, 0]
        loss = (1 - smooth) * nll - smooth * log_probs.mean(-1)

        def total(x_B):
            return jnp.where(labelled, x_B, 0).sum(dtype=jnp.float32)

        count = total(1)
        accuracy = total(logits.argmax(-1) == label)
        return Sums(total(loss), count, {"nll": (total(nll), count), "accuracy": (accuracy, count)})

    def logits(
        self,
        model: ClipClassifier,
        batch: Batch,
        masks: InputMasks | None = None,
        key: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """float32 [B, C]. Masked frames of a stream read 0: the mean row of sound, the mean grey of the picture."""
        prepared = model.encoder.prepare(batch.inputs, batch.valid_BT)
        for name, mask_BT in (("audio", masks.audio_BT), ("video", masks.video_BT)) if masks is not None else ():
            if name in prepared:
                x = prepared[name]
                prepared[name] = jnp.where(mask_BT.reshape(*mask_BT.shape, *[1] * (x.ndim - 2)), 0, x)
        x, _ = model.encoder.embed(prepared, batch.valid_BT, batch.present, key, train=train)
        return model(x, batch.valid_BT, key)
