"""By the kind of its labels, the head and the loss of a task. Dims: B clips, T frames, C classes, K levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig, TaskConfig
from mmpretrain.models.task_heads import HEADS
from mmpretrain.objectives.contrastive import semi_hard_triplet, supervised_contrastive

Said = tuple[jax.Array, jax.Array, dict[str, jax.Array]]


class Asked(NamedTuple):
    """What a loss is to know beside outputs and labels. smoothing: of labels that are classes, 0 in evaluation."""

    task: TaskConfig
    smoothing: float = 0.0


class TaskLoss(NamedTuple):
    """How labels of a kind are learned.

    make_head(model, task, rngs): a module called as `ClipHead` is. loss(output, labels, asked): for each clip its loss,
    whether it has a label, and by name the metrics, [B] each; what is said of clips without a label is not used.
    of_each: whether the loss of a clip depends on no other clip.
    """

    make_head: Callable[[ModelConfig, TaskConfig, nnx.Rngs], nnx.Module]
    loss: Callable[[jax.Array, jax.Array, Asked], Said]
    of_each: bool = True


def _of_distribution(logits: jax.Array, share: jax.Array, asked: Asked) -> jax.Array:
    """Cross-entropy [...] with the shares of the classes in the last dim, smoothed; or the focal loss.

    That is -sum q (1 - p)^gamma log p (Lin et al. 2017), q being the smoothed shares.
    """
    log_probs = jax.nn.log_softmax(logits)
    share = (1 - asked.smoothing) * share + asked.smoothing / logits.shape[-1]
    hard = 1.0
    if asked.task.loss == "focal" and asked.task.focal_gamma > 0:
        hard = jnp.maximum(-jnp.expm1(log_probs), 1e-12) ** asked.task.focal_gamma  # 0 ** gamma has no slope
    return -(share * hard * log_probs).sum(-1)


def _class(logits_BC: jax.Array, label_B: jax.Array, asked: Asked) -> Said:
    """label_B: int32, -1 where there is none; of frames [B, T]. `nll` is the loss without smoothing and focus."""
    label = jnp.maximum(label_B, 0)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits_BC), label[..., None], axis=-1)[..., 0]
    loss = _of_distribution(logits_BC, jax.nn.one_hot(label, logits_BC.shape[-1]), asked)
    return loss, label_B >= 0, {"nll": nll, "accuracy": logits_BC.argmax(-1) == label}


def _votes(logits_BC: jax.Array, share_BC: jax.Array, asked: Asked) -> Said:
    """share_BC: of the votes, NaN where there are none. `nll` is the cross-entropy with them."""
    there_B, share_BC = ~jnp.isnan(share_BC[:, 0]), jnp.nan_to_num(share_BC)
    nll = -(share_BC * jax.nn.log_softmax(logits_BC)).sum(-1)
    right = logits_BC.argmax(-1) == share_BC.argmax(-1)
    return _of_distribution(logits_BC, share_BC, asked), there_B, {"nll": nll, "accuracy": right}


def _yes_or_no(logits: jax.Array, yes: jax.Array, smoothing: float) -> jax.Array:
    """Cross-entropy of each, with answers that are smoothed towards a half."""
    yes = (1 - smoothing) * yes + smoothing / 2
    return -(yes * jax.nn.log_sigmoid(logits) + (1 - yes) * jax.nn.log_sigmoid(-logits))


def _classes(logits_BC: jax.Array, marked_BC: jax.Array, asked: Asked) -> Said:
    """marked_BC: int32, 1 for every class that a clip is of, -1 where nobody said. The mean over classes."""
    there_B, yes = marked_BC[:, 0] >= 0, marked_BC > 0
    loss_BC = _yes_or_no(logits_BC, yes, asked.smoothing)
    return loss_BC.mean(-1), there_B, {"accuracy": ((logits_BC > 0) == yes).mean(-1)}


def _binary(logit_B1: jax.Array, label_B: jax.Array, asked: Asked) -> Said:
    """label_B: int32, 1 for the second of the two classes, -1 where there is none."""
    yes, logit = label_B > 0, logit_B1[:, 0]
    loss = _yes_or_no(logit, yes, asked.smoothing)
    return loss, label_B >= 0, {"nll": _yes_or_no(logit, yes, 0.0), "accuracy": (logit > 0) == yes}


def _ordinal(odds_BK: jax.Array, level_B: jax.Array, asked: Asked) -> Said:
    """level_B: int32, -1 where there is none. The sum over thresholds of the cross-entropy of being above each."""
    above = level_B[:, None] > jnp.arange(odds_BK.shape[1])
    said = (odds_BK > 0).sum(-1)
    loss = _yes_or_no(odds_BK, above, asked.smoothing).sum(-1)
    return loss, level_B >= 0, {"accuracy": said == level_B, "levels_off": jnp.abs(said - level_B)}


def _embedding(z_BD: jax.Array, label_B: jax.Array, asked: Asked) -> Said:
    """label_B: int32, -1 where there is none. `nearest` is whether the nearest other clip is of the same class."""
    if asked.task.loss == "triplet":
        loss_B, has_B = semi_hard_triplet(z_BD, label_B, asked.task.margin)
    else:
        loss_B, has_B = supervised_contrastive(z_BD, label_B, asked.task.temperature)
    others = jnp.where((label_B >= 0) & ~jnp.eye(len(label_B), dtype=bool), z_BD @ z_BD.T, -jnp.inf)
    return loss_B, has_B, {"nearest": label_B[others.argmax(1)] == label_B}


def _value(output: jax.Array, label: jax.Array, asked: Asked) -> Said:
    """Of a clip, [B], or of every frame, [B, T]: a number, NaN where there is none. output: [..., 1].

    1 - CCC is of all labelled ones of the batch at once, and each clip's loss; the errors are of a clip, of frames
    their mean. All is on the scale of the labels, brought to -1 to 1.
    """
    low, high = asked.task.range
    there, label = ~jnp.isnan(label), (2 * jnp.nan_to_num(label) - low - high) / (high - low)
    x, axes = output[..., 0], tuple(range(1, label.ndim))

    def mean(error: jax.Array) -> jax.Array:
        return jnp.where(there, error, 0).sum(axes) / jnp.maximum(there.sum(axes), 1)

    errors = {"squared": mean(jnp.square(x - label)), "absolute": mean(jnp.abs(x - label))}
    agreement = concordance(x, label, there)
    loss = errors.get(asked.task.loss, jnp.broadcast_to(1 - agreement, len(label)))
    return loss, there.any(axes), {f"{name}_error": error for name, error in errors.items()}


def concordance(x: jax.Array, y: jax.Array, where: jax.Array) -> jax.Array:
    """Lin's concordance correlation coefficient, 2 cov / (var + var + (difference of means)^2), biased moments.

    Of the entries that are marked, all at once; 0 where neither varies.
    """
    count = jnp.maximum(where.sum(), 1)

    def mean(z: jax.Array) -> jax.Array:
        return jnp.where(where, z, 0).sum() / count

    dx, dy = x - mean(x), y - mean(y)
    spread = mean(dx**2) + mean(dy**2) + (mean(x) - mean(y)) ** 2
    return 2 * mean(dx * dy) / jnp.maximum(spread, 1e-8)


def _frames(logits_BTC: jax.Array, label_BT: jax.Array, asked: Asked) -> Said:
    """The mean over a clip's labelled frames. label_BT: int32, -1 where there is none, padding included."""
    of_frame, known_BT, values = _class(logits_BTC, label_BT, asked)

    def mean(x_BT: jax.Array) -> jax.Array:
        return jnp.where(known_BT, x_BT, 0).sum(1) / jnp.maximum(known_BT.sum(1), 1)

    return mean(of_frame), known_BT.any(1), {name: mean(x_BT) for name, x_BT in values.items()}


TASK_LOSSES: dict[str, TaskLoss] = {
    "class": TaskLoss(HEADS["class"].make, _class),
    "votes": TaskLoss(HEADS["votes"].make, _votes),
    "classes": TaskLoss(HEADS["classes"].make, _classes),
    "binary": TaskLoss(HEADS["binary"].make, _binary),
    "ordinal": TaskLoss(HEADS["ordinal"].make, _ordinal),
    "value": TaskLoss(HEADS["value"].make, _value, of_each=False),
    "embedding": TaskLoss(HEADS["embedding"].make, _embedding, of_each=False),
    "frames": TaskLoss(HEADS["frames"].make, _frames),
    "values": TaskLoss(HEADS["values"].make, _value, of_each=False),
}
