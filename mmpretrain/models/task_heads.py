"""By the kind of a task's labels, the head that leaves with a fine-tuned encoder, and what its outputs say to a reader.

Dims: B clips, T frames, C classes, K levels but the lowest, E numbers of an embedding, L layers, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import FUSIONS, ModelConfig, TaskConfig
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.fused_heads import FUSED_HEADS
from mmpretrain.models.heads import ClipHead, EmbeddingHead, FrameHead, OrdinalHead, StatisticsHead, ask
from mmpretrain.models.late import LATE, LateHead
from mmpretrain.models.streams import Beside, Heard


class HeadKind(NamedTuple):
    """make(model, task, rngs): the head, called as `ClipHead` is.

    says(output, task): of what the head puts out, float [..., N], what it says: the chance of each class, [..., C]; a
    number on the scale of the labels, [..., 1]; or a point of length 1, [..., E]. of_frames: whether it speaks of every
    frame, [B, T, N], and not of a clip, [B, N].
    """

    make: Callable[[ModelConfig, TaskConfig, nnx.Rngs], nnx.Module]
    says: Callable[[jax.Array, TaskConfig], jax.Array]
    of_frames: bool = False


def _classifier(model: ModelConfig, task: TaskConfig, rngs: nnx.Rngs) -> ClipHead:
    return ClipHead(model, len(task.classes), task.pooling, rngs=rngs)


def _single(model: ModelConfig, task: TaskConfig, rngs: nnx.Rngs) -> ClipHead:
    return ClipHead(model, 1, task.pooling, rngs=rngs)


def _ordinal(model: ModelConfig, task: TaskConfig, rngs: nnx.Rngs) -> OrdinalHead:
    return OrdinalHead(model, len(task.classes), task.pooling, rngs=rngs)


def _embedder(model: ModelConfig, task: TaskConfig, rngs: nnx.Rngs) -> EmbeddingHead:
    return EmbeddingHead(model, task.embedding_dim, task.pooling, rngs=rngs)


def _frame_classifier(model: ModelConfig, task: TaskConfig, rngs: nnx.Rngs) -> FrameHead:
    return FrameHead(model, len(task.classes), rngs=rngs)


def _frame_regressor(model: ModelConfig, task: TaskConfig, rngs: nnx.Rngs) -> FrameHead:
    return FrameHead(model, 1, rngs=rngs)


def _of_one(logits: jax.Array, task: TaskConfig) -> jax.Array:
    return jax.nn.softmax(logits)


def _of_each(logits: jax.Array, task: TaskConfig) -> jax.Array:
    return jax.nn.sigmoid(logits)


def _of_two(logit: jax.Array, task: TaskConfig) -> jax.Array:
    return jnp.concatenate([jax.nn.sigmoid(-logit), jax.nn.sigmoid(logit)], axis=-1)


def _of_levels(odds: jax.Array, task: TaskConfig) -> jax.Array:
    return jnp.exp(level_log_chances(odds))


def level_log_chances(odds: jax.Array) -> jax.Array:
    """[..., K + 1]: log of the chance of each level, of the log odds of being as high or higher, descending, [..., K].

    s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s the sigmoid, so that nothing cancels.
    """
    log_above = jnp.pad(jax.nn.log_sigmoid(odds), [(0, 0)] * (odds.ndim - 1) + [(1, 0)])
    log_below = jnp.pad(jax.nn.log_sigmoid(-odds), [(0, 0)] * (odds.ndim - 1) + [(0, 1)])
    between = jnp.log(-jnp.expm1(odds[..., 1:] - odds[..., :-1]))
    return log_above + log_below + jnp.pad(between, [(0, 0)] * (odds.ndim - 1) + [(1, 1)])


def _number(output: jax.Array, task: TaskConfig) -> jax.Array:
    low, high = task.range
    return ((high - low) * output + low + high) / 2


def _point(output: jax.Array, task: TaskConfig) -> jax.Array:
    return output / jnp.maximum(jnp.linalg.norm(output, axis=-1, keepdims=True), 1e-6)


# Forms that heads have: `HEADS[kind].make`, `StatisticsHead` (`finetune.head`), or those in which modalities meet that
# went through the encoder each alone (`finetune.fusion`).
APART = tuple(fusion for fusion in FUSIONS if fusion != "early")
FORMS = ("attentive", "frozen_linear", *APART)


def make_head(model: ModelConfig, task: TaskConfig, form: str, rngs: nnx.Rngs) -> nnx.Module:
    """form: of `FORMS` (`why_no_head` says for which tasks)."""
    if form == "frozen_linear":
        return StatisticsHead(model, len(task.classes), rngs=rngs)
    make = functools.partial(HEADS[task.kind].make, task=task, rngs=rngs)
    return fused_head(make, model, task, form, (), rngs) if form in APART else make(model)


def why_no_head(model: ModelConfig, task: TaskConfig, form: str) -> str:
    """Why a task has no head of that form; "" if it has."""
    if form not in FORMS:
        return f"heads are {', '.join(FORMS)}"
    if form in ("frozen_linear", "late_stacked") and task.kind != "class":
        return f"it is of tasks of kind 'class' alone, and {task.name} is of kind {task.kind!r}"
    if form in APART and len(model.modalities) < 2:
        return f"it is of two modalities or more, and there are {model.modalities}"
    if form in APART and (HEADS[task.kind].of_frames or task.kind == "embedding"):
        return f"it is of labels of clips, and {task.name} is of kind {task.kind!r}"
    return ""


def fused_head(
    make: Callable[[ModelConfig], nnx.Module],
    model: ModelConfig,
    task: TaskConfig,
    fusion: str,
    beside: Sequence[Beside],
    rngs: nnx.Rngs,
) -> nnx.Module:
    """The head in which several streams meet. make(model): that of one. fusion: of `APART`. beside: what is heard
    beside the encoder; with it `FUSED_HEADS` hear the encoder's joined layers."""
    if fusion.startswith(LATE):
        num_outputs = len(task.classes) - (task.kind in ("binary", "ordinal")) or 1
        rule = fusion.removeprefix(LATE)
        return LateHead(make, model, task.kind, num_outputs, beside, rule, rngs=rngs)
    head, meet = make(model), functools.partial(FUSED_HEADS[fusion], model, beside=beside, rngs=rngs)
    if isinstance(head, OrdinalHead):
        head.score = meet(1, task.pooling)
        return head
    return meet(head.out.out_features, task.pooling)


def ask_heads(
    encoder: AVEncoder,
    heads: Mapping[str, nnx.Module],
    form: str,
    layers_LBTD: jax.Array,
    prepared: Mapping[str, jax.Array],
    valid_BT: jax.Array,
    present: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    """By task what its head puts out of whole clips in evaluation, float32.

    form: of all the heads. layers_LBTD: `encoder.all_layers` of the clips, of which heads in `APART` hear nothing.
    prepared: what `encoder.prepare` returns. present: bool [B], by modality of the encoder.
    """
    layers, others = layers_LBTD.astype(jnp.float32), []
    if form in APART:
        apart = encoder.fuse_apart(encoder.streams(prepared, valid_BT, present), present)
        layers = {name: encoder.all_layers(x_BTD, valid_BT).astype(jnp.float32) for name, x_BTD in apart.items()}
        others = [Heard({}, present)]
    said = ask(heads, tuple(heads), layers, valid_BT, None, *others)
    return {task: said[task] for task in heads}


HEADS = {
    "class": HeadKind(_classifier, _of_one),
    "votes": HeadKind(_classifier, _of_one),
    "classes": HeadKind(_classifier, _of_each),
    "binary": HeadKind(_single, _of_two),
    "ordinal": HeadKind(_ordinal, _of_levels),
    "value": HeadKind(_single, _number),
    "embedding": HeadKind(_embedder, _point),
    "frames": HeadKind(_frame_classifier, _of_one, of_frames=True),
    "values": HeadKind(_frame_regressor, _number, of_frames=True),
}
