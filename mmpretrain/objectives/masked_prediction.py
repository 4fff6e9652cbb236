"""Masked multimodal cluster prediction (arXiv 2201.02184; spec, sections 7 to 9)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig, RoundConfig
from mmpretrain.models.encoder import normalize_pixels
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.objectives.base import Sums
from mmpretrain.objectives.masking import modality_use, other_clips, same_clip_sources, span_mask
from mmpretrain.records import Batch


class Masks(NamedTuple):
    """One step's random choices. Under feature masking `audio` and `video` are the same mask and `source` is unused.

    audio_BT, video_BT: bool. source_BT: int32, the frame whose picture stands at each position; source_clip_BT: int32,
    the row of the batch that it is of (None: its own). use_audio_B, use_video_B: bool, after modality dropout.
    """

    audio_BT: jax.Array
    video_BT: jax.Array
    source_BT: jax.Array
    use_audio_B: jax.Array
    use_video_B: jax.Array
    source_clip_BT: jax.Array | None = None


class Prediction(NamedTuple):
    """What the network says of the T frames that have labels, and what it should say of them.

    logits: float32 [B, T, K] of each of S codebooks. fused_BTC: the fused streams before their norm. classes_BTS:
    int32, -1 where there is no target. masked_BT, valid_BT: bool.
    """

    logits: tuple[jax.Array, ...]
    fused_BTC: jax.Array
    classes_BTS: jax.Array
    masked_BT: jax.Array
    valid_BT: jax.Array


class Counts(NamedTuple):
    """Of a whole batch, float32: the frames that its loss is a sum over, and those that the feature penalty is of."""

    weight: jax.Array
    penalised: jax.Array


@dataclasses.dataclass(frozen=True)
class MaskedPrediction:
    """Cross-entropy on the frames that were masked, from a context that never saw them."""

    model: ModelConfig
    round: RoundConfig

    def make_model(self, rngs: nnx.Rngs) -> MaskedClusterModel:
        num_classes = [targets.num_clusters + self.round.reference.dead_classes for targets in self.round.targets]
        return MaskedClusterModel(self.model, num_classes, self.round.masking.kind, rngs=rngs)

    def draw(self, key: jax.Array, batch: Batch) -> Masks:
        masking, valid = self.round.masking, batch.valid_BT
        audio_key, video_key, source_key, use_key = jax.random.split(key, 4)
        use_audio, use_video = modality_use(
            use_key, batch.has_audio_B, batch.has_video_B,
            prob=self.round.modality_dropout, audio_prob=self.round.audio_dropout,
            whole_batch=self.round.reference.whole_batch_dropout,
        )  # fmt: skip

        def spans(key, prob, span_frames):
            return span_mask(
                key, valid, prob=prob, span_frames=span_frames, equal_counts=self.round.reference.equal_mask_counts
            )

        frames = jnp.broadcast_to(jnp.arange(valid.shape[1]), valid.shape)
        if masking.kind == "feature":
            mask = spans(audio_key, masking.prob, masking.span_frames)
            return Masks(mask, mask, frames, use_audio, use_video)
        audio = spans(audio_key, masking.audio_prob, masking.audio_span_frames)
        video = spans(video_key, masking.video_prob, masking.video_span_frames)
        # A modality that the model or the clip does not have hides nothing, so it must not ask for a prediction either.
        audio &= (batch.has_audio_B & ("audio" in self.model.modalities))[:, None]
        video &= (batch.has_video_B & ("video" in self.model.modalities))[:, None]
        if masking.video_source == "same_clip":
            return Masks(audio, video, same_clip_sources(source_key, video, valid), use_audio, use_video)
        clips = jnp.where(video, other_clips(source_key, valid)[:, None], jnp.arange(len(valid))[:, None])
        return Masks(audio, video, frames, use_audio, use_video, clips)

    def predict(
        self, model: MaskedClusterModel, batch: Batch, draws: Masks, dropout_key: jax.Array | None
    ) -> Prediction:
        """Hides what `draws` says, runs the network, and lays its frames beside their labels (spec, section 7.7).

        Where the labels end before the clips do, whole batches are cut: frames behind the front-ends, that is.
        """
        valid = batch.valid_BT
        if self.round.masking.kind == "input":
            audio, pixels = self._hide_inputs(model, batch, draws)
        else:
            audio, pixels = batch.audio_BTF, normalize_pixels(batch.video_BTHW, valid, self.model)
        x, fused = model.encoder.embed(
            audio, pixels, valid, draws.use_audio_B, draws.use_video_B, dropout_key, train=dropout_key is not None,
            counted_BT=jnp.ones_like(valid) if self.round.reference.count_padding else None,
        )  # fmt: skip
        classes, mask, valid = self._asked(batch, draws)
        x, fused = (a[:, : valid.shape[1]] for a in (x, fused))
        if self.round.masking.kind == "feature":
            x = jnp.where(mask[..., None], model.mask_embedding[...].astype(x.dtype), x)
        logits = model.head(model.encoder.contextualize(x, valid, dropout_key))
        return Prediction(logits, fused, classes, mask, valid)

    def _asked(self, batch: Batch, draws: Masks) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`Prediction`'s classes_BTS, masked_BT and valid_BT, of the T frames that have labels."""
        num_frames = min(batch.valid_BT.shape[1], batch.targets_BTS.shape[1])
        targets = batch.targets_BTS[:, :num_frames]
        mask, valid = (a[:, :num_frames] for a in (draws.audio_BT | draws.video_BT, batch.valid_BT))
        return jnp.where(targets >= 0, targets + self.round.reference.dead_classes, -1), mask, valid

    def _hide_inputs(
        self, model: MaskedClusterModel, batch: Batch, draws: Masks
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Sound with the mask vector, and normalised pictures with other pictures, in the masked places."""
        audio, video, seen = batch.audio_BTF, batch.video_BTHW, batch.valid_BT
        vector = model.mask_embedding[...]
        if video is not None and draws.source_clip_BT is None:
            video = jnp.take_along_axis(video, draws.source_BT[..., None, None], axis=1)
            seen = seen & jnp.take_along_axis(seen, draws.source_BT, axis=1)
        elif video is not None:
            video = video[draws.source_clip_BT, draws.source_BT]
            seen = seen & seen[draws.source_clip_BT, draws.source_BT]
        if self.round.reference.zero_lone_clip:
            alone = batch.valid_BT.any(1).sum() == 1
            vector = jnp.where(alone, 0, vector)
            seen = seen & ~(alone & draws.video_BT)
        if audio is not None:
            audio = jnp.where(draws.audio_BT[..., None], vector, audio)
        return audio, normalize_pixels(video, seen, self.model)

    def counts(self, batch: Batch, draws: Masks) -> Counts:
        return self._counts(*self._asked(batch, draws))

    def _counts(self, classes_BTS: jax.Array, mask_BT: jax.Array, valid_BT: jax.Array) -> Counts:
        predicted = valid_BT & (classes_BTS >= 0).all(-1)
        if self.round.unmasked_weight == 0:
            predicted &= mask_BT
        penalised = jnp.ones_like(valid_BT) if self.round.reference.count_padding else valid_BT
        return Counts(predicted.sum(dtype=jnp.float32), penalised.sum(dtype=jnp.float32))

    def __call__(
        self,
        model: MaskedClusterModel,
        batch: Batch,
        draws: Masks,
        dropout_key: jax.Array | None,
        counts: Counts | None = None,
    ) -> Sums:
        return self.score(self.predict(model, batch, draws, dropout_key), counts)

    def score(self, prediction: Prediction, counts: Counts | None = None) -> Sums:
        """The loss and its parts. With several codebooks, `NAME` is over all of them and `NAME_1` is of the first.

        counts: of the batch that this is a part of; None: it is whole.
        """
        logits, fused, classes, mask, valid = prediction
        has_target = valid & (classes >= 0).all(-1)
        masked, unmasked = mask & has_target, ~mask & has_target

        def total(x_BT, where_BT):
            return jnp.where(where_BT, x_BT, 0).sum(dtype=jnp.float32)

        masked_count, unmasked_count = total(1, masked), total(1, unmasked)
        per_codebook = []
        for i, logits_BTK in enumerate(logits):
            loss_BT, correct_BT = cross_entropy(logits_BTK, classes[..., i])
            per_codebook.append(
                {
                    "masked_loss": (total(loss_BT, masked), masked_count),
                    "unmasked_loss": (total(loss_BT, unmasked), unmasked_count),
                    "masked_accuracy": (total(correct_BT, masked), masked_count),
                    "unmasked_accuracy": (total(correct_BT, unmasked), unmasked_count),
                }
            )
        means = {name: tuple(map(sum, zip(*(m[name] for m in per_codebook), strict=True))) for name in per_codebook[0]}
        each = {f"{name}_{i}": pair for i, m in enumerate(per_codebook, start=1) for name, pair in m.items()}

        # Frames count once, however many codebooks there are.
        own = self._counts(classes, mask, valid)
        whole = own if counts is None else counts
        cluster_loss = means["masked_loss"][0] + self.round.unmasked_weight * means["unmasked_loss"][0]
        # Mean square of the fused features. The reference adds its mean over the batch times the batch's weight.
        counted = jnp.ones_like(valid) if self.round.reference.count_padding else valid
        penalty = total(jnp.square(fused.astype(jnp.float32)).mean(-1), counted)
        return Sums(
            loss=cluster_loss + self.round.feature_penalty * (penalty / jnp.maximum(whole.penalised, 1)) * whole.weight,
            weight=own.weight,
            metrics=means | (each if len(logits) > 1 else {}) | {
                "masked_share": (masked_count, masked_count + unmasked_count),
                "feature_penalty": (penalty, own.penalised),
            },
        )  # fmt: skip


def cross_entropy(logits_BTK: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Per-frame negative log-likelihood in nats and whether the largest logit is the target; targets < 0 count as 0."""
    targets = jnp.maximum(targets_BT, 0)[..., None]
    nll = jax.nn.logsumexp(logits_BTK, axis=-1) - jnp.take_along_axis(logits_BTK, targets, axis=-1)[..., 0]
    return nll, logits_BTK.argmax(-1) == targets[..., 0]
