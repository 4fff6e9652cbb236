"""Masked multimodal cluster prediction (arXiv 2201.02184; spec, sections 7 to 9)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig, RoundConfig
from mmpretrain.data.records import Batch
from mmpretrain.models.encoder import normalize_pixels
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.objectives.base import Sums
from mmpretrain.objectives.masking import modality_use, same_clip_sources, span_mask


class Masks(NamedTuple):
    """One step's random choices. Under feature masking `audio` and `video` are the same mask and `source` is unused.

    audio_BT, video_BT: bool. source_BT: int32, the frame whose picture stands at each position.
    use_audio_B, use_video_B: bool, after modality dropout.
    """

    audio_BT: jax.Array
    video_BT: jax.Array
    source_BT: jax.Array
    use_audio_B: jax.Array
    use_video_B: jax.Array


@dataclasses.dataclass(frozen=True)
class MaskedPrediction:
    """Cross-entropy on the frames that were masked, from a context that never saw them."""

    model: ModelConfig
    round: RoundConfig

    def make_model(self, rngs: nnx.Rngs) -> MaskedClusterModel:
        return MaskedClusterModel(self.model, self.round.targets.num_clusters, self.round.masking.kind, rngs=rngs)

    def draw(self, key: jax.Array, batch: Batch) -> Masks:
        masking = self.round.masking
        audio_key, video_key, source_key, use_key = jax.random.split(key, 4)
        use_audio, use_video = modality_use(
            use_key, batch.has_audio_B, batch.has_video_B,
            prob=self.round.modality_dropout, audio_prob=self.round.audio_dropout,
        )  # fmt: skip
        if masking.kind == "feature":
            mask = span_mask(audio_key, batch.valid_BT, prob=masking.prob, span_frames=masking.span_frames)
            frames = jnp.broadcast_to(jnp.arange(mask.shape[1]), mask.shape)
            return Masks(mask, mask, frames, use_audio, use_video)
        audio = span_mask(audio_key, batch.valid_BT, prob=masking.audio_prob, span_frames=masking.audio_span_frames)
        video = span_mask(video_key, batch.valid_BT, prob=masking.video_prob, span_frames=masking.video_span_frames)
        # A modality that the model or the clip does not have hides nothing, so it must not ask for a prediction either.
        audio &= (batch.has_audio_B & ("audio" in self.model.modalities))[:, None]
        video &= (batch.has_video_B & ("video" in self.model.modalities))[:, None]
        return Masks(audio, video, same_clip_sources(source_key, video, batch.valid_BT), use_audio, use_video)

    def __call__(self, model: MaskedClusterModel, batch: Batch, draws: Masks, dropout_key: jax.Array | None) -> Sums:
        audio, video = batch.audio_BTF, batch.video_BTHW
        embedding = model.mask_embedding[...]
        hides_inputs = self.round.masking.kind == "input"
        if hides_inputs and audio is not None:
            audio = jnp.where(draws.audio_BT[..., None], embedding, audio)
        if hides_inputs and video is not None:
            video = jnp.take_along_axis(video, draws.source_BT[..., None, None], axis=1)
        pixels = normalize_pixels(video, batch.valid_BT, self.model)
        x, fused = model.encoder.embed(
            audio, pixels, batch.valid_BT, draws.use_audio_B, draws.use_video_B, dropout_key,
            train=dropout_key is not None,
        )  # fmt: skip
        if not hides_inputs:
            x = jnp.where(draws.audio_BT[..., None], embedding.astype(x.dtype), x)
        x = model.encoder.contextualize(x, batch.valid_BT, dropout_key)
        logits = model.head(x)

        has_target = batch.valid_BT & (batch.targets_BT >= 0)
        mask = draws.audio_BT | draws.video_BT
        masked, unmasked = mask & has_target, ~mask & has_target
        loss_BT, correct_BT = cross_entropy(logits, batch.targets_BT)

        def total(x_BT, where_BT):
            return jnp.where(where_BT, x_BT, 0).sum(dtype=jnp.float32)

        masked_count, unmasked_count = total(1, masked), total(1, unmasked)
        weight = masked_count + (unmasked_count if self.round.unmasked_weight > 0 else 0)
        cluster_loss = total(loss_BT, masked) + self.round.unmasked_weight * total(loss_BT, unmasked)
        # Mean square of the fused features over real frames (the reference counts padding as well).
        frames = jnp.maximum(batch.valid_BT.sum(dtype=jnp.float32), 1.0)
        squares = jnp.square(fused.astype(jnp.float32)).mean(-1)
        penalty = total(squares, batch.valid_BT) / frames
        return Sums(
            loss=cluster_loss + self.round.feature_penalty * penalty * weight,
            weight=weight,
            metrics={
                "masked_loss": (total(loss_BT, masked), masked_count),
                "masked_accuracy": (total(correct_BT, masked), masked_count),
                "unmasked_accuracy": (total(correct_BT, unmasked), unmasked_count),
                "masked_share": (masked_count, masked_count + unmasked_count),
                "feature_penalty": (penalty * frames, frames),
            },
        )


def cross_entropy(logits_BTK: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Per-frame negative log-likelihood in nats and whether the largest logit is the target; targets < 0 count as 0."""
    targets = jnp.maximum(targets_BT, 0)[..., None]
    nll = jax.nn.logsumexp(logits_BTK, axis=-1) - jnp.take_along_axis(logits_BTK, targets, axis=-1)[..., 0]
    return nll, logits_BTK.argmax(-1) == targets[..., 0]
