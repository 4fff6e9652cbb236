"""Classification of whole clips: emotion fine-tuning of a pretrained encoder."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import FinetuneConfig, ModelConfig
from mmpretrain.models.encoder import normalize_pixels
from mmpretrain.models.heads import ClipClassifier
from mmpretrain.objectives.base import Sums
from mmpretrain.objectives.masking import span_mask
from mmpretrain.records import Batch


class InputMasks(NamedTuple):
    """Stretches hidden as augmentation: bool [B, T] each."""

    audio_BT: jax.Array
    video_BT: jax.Array


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy of one label a clip. Rows with label -1 count for nothing."""

    model: ModelConfig
    finetune: FinetuneConfig

    def make_model(self, rngs: nnx.Rngs) -> ClipClassifier:
        return ClipClassifier(self.model, len(self.finetune.classes), rngs=rngs)

    def draw(self, key: jax.Array, batch: Batch) -> InputMasks:
        masking = self.finetune.masking
        if masking is None:
            return InputMasks(jnp.zeros_like(batch.valid_BT), jnp.zeros_like(batch.valid_BT))
        audio_key, video_key = jax.random.split(key)
        return InputMasks(
            span_mask(audio_key, batch.valid_BT, prob=masking.audio_prob, span_frames=masking.audio_span_frames),
            span_mask(video_key, batch.valid_BT, prob=masking.video_prob, span_frames=masking.video_span_frames),
        )

    def counts(self, batch: Batch, draws: InputMasks) -> None:
        """The loss of a clip depends on no other clip."""

    def __call__(
        self,
        model: ClipClassifier,
        batch: Batch,
        draws: InputMasks,
        dropout_key: jax.Array | None,
        counts: None = None,
    ) -> Sums:
        train = dropout_key is not None
        logits = self.logits(model, batch, draws if train else None, dropout_key)
        labelled = batch.label_B >= 0
        label = jnp.maximum(batch.label_B, 0)
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
        self, model: ClipClassifier, batch: Batch, masks: InputMasks | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """float32 [B, C]. Masked frames of a stream read 0: the mean row of sound, the mean grey of the picture."""
        audio = batch.audio_BTF
        pixels = normalize_pixels(batch.video_BTHW, batch.valid_BT, self.model)
        if masks is not None and audio is not None:
            audio = jnp.where(masks.audio_BT[..., None], 0, audio)
        if masks is not None and pixels is not None:
            pixels = jnp.where(masks.video_BT[..., None, None], 0, pixels)
        x, _ = model.encoder.embed(
            audio, pixels, batch.valid_BT, batch.has_audio_B, batch.has_video_B, key, train=key is not None
        )
        return model(x, batch.valid_BT, key)
