"""Masked multimodal cluster prediction (arXiv 2201.02184; spec, sections 7 to 9)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig, RoundConfig
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.objectives.base import Better, Objective, Sums, mean_metrics, total
from mmpretrain.objectives.masking import (
    mask_beyond,
    modality_use,
    most_visible,
    other_clips,
    places,
    same_clip_sources,
    span_mask,
)
from mmpretrain.randomness import named
from mmpretrain.records import Batch

LEAST_SQUARE = 1e-4  # of a stream, below which the stream penalty does not grow


class Masks(NamedTuple):
    """One step's random choices. Under feature masking `audio` and `video` are the same mask and `source` is unused.

    audio_BT, video_BT: bool. source_BT: int32, the frame whose picture stands at each position; source_clip_BT: int32,
    the row of the batch that it is of (None: its own). use: bool [B] a modality of the model, after modality dropout.
    visible_BK: int32, of each clip the frames whose pictures are looked at, T where there are fewer; None: all are.
    """

    audio_BT: jax.Array
    video_BT: jax.Array
    source_BT: jax.Array
    use: dict[str, jax.Array]
    source_clip_BT: jax.Array | None = None
    visible_BK: jax.Array | None = None


class Prediction(NamedTuple):
    """What the network says of the T frames that have labels, and what it should say of them.

    logits: float32 [B, T, K] of each of S codebooks. fused_BTC: the fused streams before their norm. classes_BTS:
    int32, -1 where there is no target. masked_BT, valid_BT: bool. use: bool [B] a modality, whose stream is not 0.
    """

    logits: tuple[jax.Array, ...]
    fused_BTC: jax.Array
    classes_BTS: jax.Array
    masked_BT: jax.Array
    valid_BT: jax.Array
    use: Mapping[str, jax.Array]


class Counts(NamedTuple):
    """Of a whole batch, float32: the frames that its loss is a sum over, and those that the feature penalty is of."""

    weight: jax.Array
    penalised: jax.Array


@dataclasses.dataclass(frozen=True)
class MaskedPrediction(Objective):
    """Cross-entropy on the frames that were masked, from a context that never saw them.

    A frame is predicted by the heads of those codebooks that it has a target of.
    """

    better: ClassVar[Mapping[str, Better]] = {
        "loss": "lower", "masked_loss": "lower", "unmasked_loss": "lower", "feature_penalty": "lower",
        "masked_accuracy": "higher", "unmasked_accuracy": "higher",
    }  # fmt: skip
    shown: ClassVar[tuple[str, ...]] = ("loss", "masked_accuracy")

    model: ModelConfig
    round: RoundConfig

    def make_model(self, rngs: nnx.Rngs) -> MaskedClusterModel:
        num_classes = [targets.num_clusters + self.round.reference.dead_classes for targets in self.round.targets]
        return MaskedClusterModel(self.model, num_classes, self.round.masking.kind, rngs=rngs)

    def draw(self, keys_B: jax.Array, batch: Batch, *, step: jax.Array, train: bool) -> Masks:
        """Masks, and which modalities are used. Of a modality that the model or a clip lacks nothing is hidden.

        Validation has masks as training has them, but all that a clip has is used (spec, section 7.3).
        """
        del step
        masking, valid, none_B = self.round.masking, batch.valid_BT, jnp.zeros(len(batch.valid_BT), bool)
        has_audio_B, has_video_B = (batch.present.get(name, none_B) for name in ("audio", "video"))
        use = dict(batch.present)
        if train:
            use_audio, use_video = modality_use(
                named(keys_B, "modality dropout"), has_audio_B, has_video_B,
                prob=self.round.modality_dropout, audio_prob=self.round.audio_dropout,
                whole_batch=self.round.reference.whole_batch_dropout,
            )  # fmt: skip
            use |= {name: use_B for name, use_B in (("audio", use_audio), ("video", use_video)) if name in use}

        def spans(name, prob, span_frames):
            return span_mask(
                named(keys_B, name), valid, prob=prob, span_frames=span_frames,
                equal_counts=self.round.reference.equal_mask_counts,
            )  # fmt: skip

        frames = jnp.broadcast_to(jnp.arange(valid.shape[1]), valid.shape)
        if masking.kind == "feature":
            mask = spans("feature mask", masking.prob, masking.span_frames)
            if not masking.visible_only:
                return Masks(mask, mask, frames, use)
            most = most_visible(valid.shape[1], prob=masking.prob, span_frames=masking.span_frames)
            mask = mask_beyond(named(keys_B, "feature mask"), mask, valid, most)
            return Masks(mask, mask, frames, use, visible_BK=places(valid & ~mask, most))
        audio = spans("audio mask", masking.audio_prob, masking.audio_span_frames)
        video = spans("video mask", masking.video_prob, masking.video_span_frames)
        # A modality that is not there hides nothing, so it must not ask for a prediction either.
        audio &= has_audio_B[:, None]
        video &= has_video_B[:, None]
        source_keys = named(keys_B, "picture sources")
        if masking.video_source == "same_clip":
            return Masks(audio, video, same_clip_sources(source_keys, video, valid), use)
        source_B = other_clips(source_keys, valid & has_video_B[:, None])
        clips = jnp.where(video, source_B[:, None], jnp.arange(len(valid))[:, None])
        return Masks(audio, video, frames, use, clips)

    def predict(
        self, model: MaskedClusterModel, batch: Batch, draws: Masks, key: jax.Array | None, *, train: bool = False
    ) -> Prediction:
        """Hides what `draws` says and runs the network."""
        x, fused, *asked = self.embed(model, batch, draws, key, train=train)
        logits = model.head(model.encoder.contextualize(x, asked[-1], key))
        return Prediction(logits, fused, *asked, draws.use)

    def embed(
        self, model: MaskedClusterModel, batch: Batch, draws: Masks, key: jax.Array | None, *, train: bool
    ) -> tuple[jax.Array, ...]:
        """What the transformer takes, [B, T, D], with what `draws` says hidden; then, as `Prediction` has them, the
        fused streams, the classes, what is masked and what is valid.

        Where the targets of a batch end before its clips do, the frames behind the last target are cut off after the
        front-ends, as the reference does (spec, section 7.7).
        """
        valid = batch.valid_BT
        if self.round.masking.kind == "input":
            prepared = self._hide_inputs(model, batch, draws)
        else:
            prepared = model.encoder.prepare(batch.inputs, valid)
        counted = None
        if self.round.reference.count_padding:  # all frames of all clips that there is something of
            counted = {name: jnp.broadcast_to(has_B[:, None], valid.shape) for name, has_B in batch.present.items()}
        visible = {} if draws.visible_BK is None else {"video": draws.visible_BK}
        x, fused = model.encoder.embed(
            prepared, valid, draws.use, key, train=train, counted=counted, visible=visible
        )  # fmt: skip
        classes, mask, valid = self._asked(batch, draws)
        x, fused = (a[:, : valid.shape[1]] for a in (x, fused))
        if self.round.masking.kind == "feature":
            x = jnp.where(mask[..., None], model.mask_embedding[...].astype(x.dtype), x)
        return x, fused, classes, mask, valid

    def _asked(self, batch: Batch, draws: Masks) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`Prediction`'s classes_BTS, masked_BT and valid_BT, of the frames up to the last that the targets reach."""
        num_frames = min(batch.valid_BT.shape[1], batch.targets_BTS.shape[1])
        targets = batch.targets_BTS[:, :num_frames]
        mask, valid = (a[:, :num_frames] for a in (draws.audio_BT | draws.video_BT, batch.valid_BT))
        return jnp.where(targets >= 0, targets + self.round.reference.dead_classes, -1), mask, valid

    def _hide_inputs(self, model: MaskedClusterModel, batch: Batch, draws: Masks) -> dict[str, jax.Array]:
        """Sound with the mask vector, and pictures with other pictures, in the masked places; others as they are."""
        raw, seen = dict(batch.inputs), {name: batch.valid_BT for name in batch.inputs}
        vector = model.mask_embedding[...]
        alone = batch.valid_BT.any(1).sum() == 1 if self.round.reference.zero_lone_clip else None
        if "video" in raw:
            video, seen_BT = raw["video"], batch.valid_BT
            if draws.source_clip_BT is None:
                raw["video"] = jnp.take_along_axis(video, draws.source_BT[..., None, None], axis=1)
                seen_BT = seen_BT & jnp.take_along_axis(seen_BT, draws.source_BT, axis=1)
            else:
                raw["video"] = video[draws.source_clip_BT, draws.source_BT]
                seen_BT = seen_BT & seen_BT[draws.source_clip_BT, draws.source_BT]
            seen["video"] = seen_BT if alone is None else seen_BT & ~(alone & draws.video_BT)
        prepared = {name: model.encoder.frontends[name].prepare(x, seen[name]) for name, x in raw.items()}
        if "audio" in prepared:
            vector = vector if alone is None else jnp.where(alone, 0, vector)
            prepared["audio"] = jnp.where(draws.audio_BT[..., None], vector, prepared["audio"])
        return prepared

    def counts(self, batch: Batch, draws: Masks) -> Counts:
        """Of the batch, for the losses of its parts."""
        return self._counts(*self._asked(batch, draws))

    def _counts(self, classes_BTS: jax.Array, mask_BT: jax.Array, valid_BT: jax.Array) -> Counts:
        predicted = valid_BT & (classes_BTS >= 0).any(-1)
        if self.round.unmasked_weight == 0:
            predicted &= mask_BT
        return Counts(predicted.sum(dtype=jnp.float32), self._penalised(mask_BT, valid_BT).sum(dtype=jnp.float32))

    def _penalised(self, mask_BT: jax.Array, valid_BT: jax.Array) -> jax.Array:
        """The frames whose fused features are to be small: real ones, and of these such as pictures are looked at."""
        if self.round.masking.visible_only:
            return valid_BT & ~mask_BT
        return jnp.ones_like(valid_BT) if self.round.reference.count_padding else valid_BT

    def loss(
        self,
        model: MaskedClusterModel,
        batch: Batch,
        draws: Masks,
        key: jax.Array | None,
        *,
        train: bool,
        counts: Counts | None = None,
    ) -> Sums:
        """The loss and its parts, of what `predict` says."""
        return self.score(self.predict(model, batch, draws, key, train=train), counts)

    def score(self, prediction: Prediction, counts: Counts | None = None) -> Sums:
        """The loss and its parts. With several codebooks, `NAME` is over all of them and `NAME_1` is of the first.

        counts: of the batch that this is a part of; None: it is whole.
        """
        logits, fused, classes, mask, valid, use = prediction
        per_codebook = [_codebook_sums(logits[s], classes[..., s], mask, valid) for s in range(len(logits))]
        means = {name: tuple(map(sum, zip(*(m[name] for m in per_codebook), strict=True))) for name in per_codebook[0]}
        each = {f"{name}_{i}": pair for i, m in enumerate(per_codebook, start=1) for name, pair in m.items()}

        # Frames count once, however many codebooks they have targets of.
        own = self._counts(classes, mask, valid)
        whole = own if counts is None else counts
        weights = [targets.weight for targets in self.round.targets]
        masked_loss, unmasked_loss = (
            sum(weight * m[name][0] for weight, m in zip(weights, per_codebook, strict=True))
            for name in ("masked_loss", "unmasked_loss")
        )
        cluster_loss = masked_loss + self.round.unmasked_weight * unmasked_loss
        # The reference adds the mean of its penalty over the batch times the batch's weight.
        squares, penalised = jnp.square(fused.astype(jnp.float32)), self._penalised(mask, valid)
        shares = self._shares(squares, penalised)
        if self.round.feature_penalty_of == "fused":
            penalty = total(squares.mean(-1), penalised)
        else:
            penalty = self._stream_penalty(squares, penalised, use)
        asked = valid & (classes >= 0).any(-1)
        return Sums(
            loss=cluster_loss + self.round.feature_penalty * (penalty / jnp.maximum(whole.penalised, 1)) * whole.weight,
            weight=own.weight,
            metrics=means | (each if len(logits) > 1 else {}) | shares | {
                "masked_share": (total(1, mask & asked), total(1, asked)),
                "feature_penalty": (penalty, own.penalised),
            },
            more=cluster_loss,
        )  # fmt: skip

    def _streams(self, fused_BTC: jax.Array) -> dict[str, jax.Array]:
        """The streams that are side by side in it, [B, T, D] each; of added ones nothing."""
        names = self.model.modalities if self.model.fusion == "concat" else ()
        return dict(zip(names, jnp.split(fused_BTC, len(names), axis=-1), strict=True)) if names else {}

    def _shares(self, squares_BTC: jax.Array, penalised_BT: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Of several streams, how much of the fused square each is."""
        of_each = {
            name: total(square_BTD.sum(-1), penalised_BT) for name, square_BTD in self._streams(squares_BTC).items()
        }
        whole = sum(of_each.values())
        return {f"{name}_share": (of_it, whole) for name, of_it in of_each.items()} if len(of_each) > 1 else {}

    def _stream_penalty(
        self, squares_BTC: jax.Array, penalised_BT: jax.Array, use: Mapping[str, jax.Array]
    ) -> jax.Array:
        """q - log q - 1 of every stream of every clip, q being its mean square; a sum over frames, mean over streams.

        It is 0 at q = 1 and grows both ways: twice the divergence of a normal distribution of variance q from one of
        variance 1. A clip has a q of its own, so that the sum does not depend on how a batch is cut. What pulls a
        stream back grows as it shrinks, whatever the optimizer does with the size of its gradient.
        """
        frames_B = penalised_BT.sum(1, dtype=jnp.float32)
        sums, used = 0.0, 0
        for name, square_BTD in self._streams(squares_BTC).items():
            use_B = use[name] & (frames_B > 0)
            q_B = jnp.where(penalised_BT, square_BTD.mean(-1), 0).sum(1) / jnp.maximum(frames_B, 1)
            q_B = jnp.where(use_B, q_B + LEAST_SQUARE, 1)
            sums, used = sums + (q_B - jnp.log(q_B) - 1), used + use_B
        return (sums / jnp.maximum(used, 1) * frames_B).sum()

    def summarize(self, sums: Sums) -> dict[str, jax.Array]:
        """The metrics. The penalty is a mean over all frames that the sums are of, so that how the clips of an
        evaluation were batched changes nothing."""
        metrics = mean_metrics(sums)
        penalty = (sums.weight > 0) * self.round.feature_penalty * metrics["feature_penalty"]
        return metrics | {"loss": sums.more / (sums.weight + (sums.weight == 0)) + penalty}


def _codebook_sums(
    logits_BTK: jax.Array, classes_BT: jax.Array, mask_BT: jax.Array, valid_BT: jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The (sum, count) of each metric of one codebook, over the frames that have a target of it."""
    loss_BT, correct_BT = cross_entropy(logits_BTK, classes_BT)
    has_target_BT = valid_BT & (classes_BT >= 0)
    sums = {}
    for name, where_BT in (("masked", mask_BT & has_target_BT), ("unmasked", ~mask_BT & has_target_BT)):
        count = total(1, where_BT)
        sums[f"{name}_loss"] = total(loss_BT, where_BT), count
        sums[f"{name}_accuracy"] = total(correct_BT, where_BT), count
    return sums


def cross_entropy(logits_BTK: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Per-frame negative log-likelihood in nats and whether the largest logit is the target; targets < 0 count as 0."""
    targets = jnp.maximum(targets_BT, 0)[..., None]
    nll = jax.nn.logsumexp(logits_BTK, axis=-1) - jnp.take_along_axis(logits_BTK, targets, axis=-1)[..., 0]
    return nll, logits_BTK.argmax(-1) == targets[..., 0]
