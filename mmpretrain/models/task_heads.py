"""By the kind of a task's labels, the head that leaves with a fine-tuned encoder, and what its outputs say to a reader.

Dims: B clips, T frames, C classes, K levels but the lowest, E numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig, TaskConfig
from mmpretrain.models.heads import ClipHead, EmbeddingHead, FrameHead, OrdinalHead, StatisticsHead


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


# Forms that heads of classes have: `HEADS[kind].make`, or `StatisticsHead` (`finetune.head`).
FORMS = ("attentive", "frozen_linear")


def make_head(model: ModelConfig, task: TaskConfig, form: str, rngs: nnx.Rngs) -> nnx.Module:
    """form: of `FORMS`, the second for tasks of kind "class" alone."""
    if form == "frozen_linear":
        return StatisticsHead(model, len(task.classes), rngs=rngs)
    return HEADS[task.kind].make(model, task, rngs)


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
