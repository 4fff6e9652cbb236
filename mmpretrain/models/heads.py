"""What sits on an encoder while it learns: the cluster predictor of pretraining and the heads of labelled tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import AUDIO_DIM, ModelConfig
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.layers import dropout, linear, reverse_gradient
from mmpretrain.randomness import named

# What a head says, and aside what else is to be known of it: by name an array [B, ...].
Said = tuple[jax.Array, dict[str, jax.Array]]


class ClusterHead(nnx.Module):
    """Similarity of a projected frame to each class's embedding, over a temperature (spec, section 7.6).

    num_classes: one number a codebook. Each has its own part of the projection, unless it is tied, and of the
    embeddings, which are one matrix.
    """

    def __init__(self, config: ModelConfig, num_classes: Sequence[int], *, rngs: nnx.Rngs):
        P = config.proj_dim
        self.num_classes = tuple(num_classes)
        projections = 1 if config.reference.tied_projection else len(self.num_classes)
        self.proj = linear(config.width, projections * P, ("embed", None), dtype=config.dtype, rngs=rngs)
        embeddings = jax.random.uniform(rngs.params(), (sum(self.num_classes), P))
        self.embeddings = nnx.Param(embeddings, axes=("clusters", None))
        self.similarity = dot if config.reference.dot_similarity else cosine
        self.temperature = config.temperature

    def __call__(self, x_BTD: jax.Array) -> tuple[jax.Array, ...]:
        """Logits [B, T, K] in float32, of each codebook."""
        x = self.proj(x_BTD).astype(jnp.float32)
        P, sets = self.embeddings.shape[1], len(self.num_classes)
        projected = jnp.split(x, x.shape[-1] // P, axis=-1) if x.shape[-1] > P else [x] * sets
        embeddings = jnp.split(self.embeddings[...], list(itertools.accumulate(self.num_classes))[:-1])
        pairs = zip(projected, embeddings, strict=True)
        return tuple(self.similarity(p, e) / self.temperature for p, e in pairs)


def cosine(p_BTP: jax.Array, e_KP: jax.Array) -> jax.Array:
    """<p, e> / max(|p| |e|, 1e-6) [B, T, K]; normalising the embeddings first keeps it one matmul."""
    return p_BTP @ (e_KP / length(e_KP, 1e-12)).T / length(p_BTP, 1e-6)


def length(x: jax.Array, least: float) -> jax.Array:
    """max(|x|, least) over the last dim [..., 1]. The bound is below the root, whose slope at 0 is infinite."""
    return jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), least**2))


def dot(p_BTP: jax.Array, e_KP: jax.Array) -> jax.Array:
    """<p, e> [B, T, K]."""
    return p_BTP @ e_KP.T


class MaskedClusterModel(nnx.Module):
    """Encoder, cluster head, and the learned vector that stands where something is hidden.

    The vector has the width of what is masked: an audio row (kind "input") or a fused frame (kind "feature").
    """

    def __init__(self, config: ModelConfig, num_classes: Sequence[int], masking_kind: str, *, rngs: nnx.Rngs):
        self.encoder = AVEncoder(config, rngs=rngs)
        self.head = ClusterHead(config, num_classes, rngs=rngs)
        dim = AUDIO_DIM if masking_kind == "input" else config.width
        self.mask_embedding = nnx.Param(jax.random.uniform(rngs.params(), (dim,)), axes=(None,))


class ClusterAndTaskModel(MaskedClusterModel):
    """That with a head for each task beside. make_heads: as `MultiTaskModel` takes them."""

    def __init__(
        self,
        config: ModelConfig,
        num_classes: Sequence[int],
        masking_kind: str,
        make_heads: Mapping[str, Callable[[nnx.Rngs], nnx.Module]],
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(config, num_classes, masking_kind, rngs=rngs)
        self.heads = nnx.Dict({task: make(rngs) for task, make in make_heads.items()})


class ClipHead(nnx.Module):
    """A learned mix of all layers, pooled over the valid frames, then one linear layer.

    pooling: "attentive_statistics" (Okabe, Koshinaka, Shinoda 2018): mean and deviation by a learned weight a frame, so
    that silence need not count; "attention": that mean alone; "mean": the plain one.
    """

    def __init__(self, config: ModelConfig, num_outputs: int, pooling: str = "attentive_statistics", *, rngs: nnx.Rngs):
        self.pooling = pooling
        self.layer_weights = nnx.Param(jnp.zeros(config.num_layers + 1), axes=(None,))
        if pooling != "mean":
            self.attend = linear(
                config.width, 1, ("embed", None), dtype="float32", rngs=rngs, kernel_init=nnx.initializers.zeros
            )  # starts as the plain mean
        size = 2 * config.width if pooling == "attentive_statistics" else config.width
        self.out = linear(
            size, num_outputs, ("embed", None), dtype="float32", rngs=rngs, kernel_init=nnx.initializers.normal(0.02)
        )
        self.dropout = config.dropout

    def __call__(self, layers_LBTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        """[B, num_outputs] in float32. layers_LBTD: every layer's stream, float32."""
        return self.out(dropout(self.pooled(layers_LBTD, valid_BT), self.dropout, key))

    def pooled(self, layers_LBTD: jax.Array, valid_BT: jax.Array) -> jax.Array:
        """What the last layer takes, [B, D] or, of mean and deviation, [B, 2 D]."""
        mixed, valid_BT1 = mix(layers_LBTD, self.layer_weights[...]), valid_BT[..., None]
        scores = 0.0 if self.pooling == "mean" else self.attend(mixed)
        scores = jnp.where(valid_BT1, scores, jnp.finfo(jnp.float32).min)
        weight = jnp.where(valid_BT1, jax.nn.softmax(scores, axis=1), 0)
        centre = (mixed * weight).sum(1)
        if self.pooling != "attentive_statistics":
            return centre
        spread = jnp.sqrt((jnp.square(mixed - centre[:, None]) * weight).sum(1) + 1e-5)
        return jnp.concatenate([centre, spread], axis=-1)


class EmbeddingHead(ClipHead):
    """A point of length 1 for each clip, so that the inner product of two is their cosine."""

    def __call__(self, layers_LBTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        """[B, num_outputs] in float32. layers_LBTD: every layer's stream, float32."""
        z_BD = super().__call__(layers_LBTD, valid_BT, key)
        return z_BD / length(z_BD, 1e-6)


class OrdinalHead(nnx.Module):
    """How high a clip is on a scale of levels: one score, and a threshold between each two levels, in ascending order.

    Proportional odds (McCullagh 1980): level k is passed with probability sigmoid(score - threshold k).
    """

    def __init__(self, config: ModelConfig, num_levels: int, pooling: str = "attentive_statistics", *, rngs: nnx.Rngs):
        self.score = ClipHead(config, 1, pooling, rngs=rngs)
        self.first = nnx.Param(jnp.full(1, -(num_levels - 2) / 2), axes=(None,))
        self.gaps = nnx.Param(jnp.full(num_levels - 2, math.log(math.e - 1)), axes=(None,))  # softplus of it is 1

    def __call__(
        self, layers_LBTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None, *others: Any
    ) -> jax.Array | Said:
        """[B, levels - 1] in float32: for each level but the lowest, the log odds of being that high or higher.

        others: what `score` takes besides; what it says aside is said here.
        """
        thresholds = jnp.cumsum(jnp.concatenate([self.first[...], jax.nn.softplus(self.gaps[...])]))
        score = self.score(layers_LBTD, valid_BT, key, *others)
        return (score[0] - thresholds, score[1]) if isinstance(score, tuple) else score - thresholds


class StatisticsHead(nnx.Module):
    """Mean and deviation over the valid frames of every layer, each brought to a mean and scale, and a linear layer.

    Mean and scale are set from outside, and are not learned.
    """

    def __init__(self, config: ModelConfig, num_outputs: int, *, rngs: nnx.Rngs):
        size = (config.num_layers + 1) * 2 * config.width
        self.mean = nnx.Param(jnp.zeros(size), axes=(None,))
        self.scale = nnx.Param(jnp.ones(size), axes=(None,))
        self.out = linear(
            size, num_outputs, (None, None), dtype="float32", rngs=rngs, kernel_init=nnx.initializers.zeros
        )
        self.dropout = config.dropout

    def __call__(self, layers_LBTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        """[B, num_outputs] in float32. layers_LBTD: every layer's stream, float32."""
        weight_BT = valid_BT / jnp.maximum(valid_BT.sum(1), 1)[:, None]
        weight_LBTD = weight_BT[None, :, :, None]
        mean_LBD = (layers_LBTD * weight_LBTD).sum(2)
        variance_LBD = (jnp.square(layers_LBTD - mean_LBD[:, :, None]) * weight_LBTD).sum(2)
        deviation_LBD = jnp.sqrt(jnp.maximum(variance_LBD, 1e-12))  # whose slope at 0 is infinite
        statistics_BLD = jnp.concatenate([mean_LBD, deviation_LBD], axis=-1).swapaxes(0, 1)
        x = jax.lax.collapse(statistics_BLD, 1)  # whatever B is: of an exported program it is no number
        return self.out(dropout((x - self.mean[...]) / self.scale[...], self.dropout, key))


class FrameHead(nnx.Module):
    """A learned mix of all layers, then one linear layer on every frame."""

    def __init__(self, config: ModelConfig, num_outputs: int, *, rngs: nnx.Rngs):
        self.layer_weights = nnx.Param(jnp.zeros(config.num_layers + 1), axes=(None,))
        self.out = linear(
            config.width, num_outputs, ("embed", None), dtype="float32", rngs=rngs,
            kernel_init=nnx.initializers.normal(0.02),
        )  # fmt: skip
        self.dropout = config.dropout

    def __call__(self, layers_LBTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        """[B, T, num_outputs] in float32. layers_LBTD: every layer's stream, float32."""
        del valid_BT
        return self.out(dropout(mix(layers_LBTD, self.layer_weights[...]), self.dropout, key))


def mix(layers_LBTD: jax.Array, weights_L: jax.Array) -> jax.Array:
    """[B, T, D]: the mean of all layers by the softmax of the weights, each of mean 0 and variance 1 in every frame."""
    mean = layers_LBTD.mean(-1, keepdims=True)  # layers differ in scale
    layers_LBTD = (layers_LBTD - mean) * jax.lax.rsqrt(layers_LBTD.var(-1, keepdims=True) + 1e-5)
    return jnp.einsum("LBTD,L->BTD", layers_LBTD, jax.nn.softmax(weights_L))


def ask(
    heads: Mapping[str, nnx.Module],
    tasks: Sequence[str],
    layers: jax.Array | Mapping[str, jax.Array],
    valid_BT: jax.Array,
    key: jax.Array | None,
    *others: Any,
    reversals: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """By task what its head says of the layers, [L, B, T, D] or one such of each modality, and as TASK/NAME what it
    says aside.

    others: what the heads take besides. reversals: [B], of a task whose gradient is reversed for the encoder, by how
    much.
    """
    said = {}
    for task in tasks:
        heard = layers
        if reversals and task in reversals:
            by_LBTD = reversals[task][None, :, None, None]
            heard = jax.tree.map(lambda x, by=by_LBTD: reverse_gradient(x, by), layers)
        answer = heads[task](heard, valid_BT, named(key, f"head {task}"), *others)
        answer, aside = answer if isinstance(answer, tuple) else (answer, {})
        said |= {task: answer} | {f"{task}/{name}": x for name, x in aside.items()}
    return said


class MultiTaskModel(nnx.Module):
    """An encoder and a head for each task. make_heads: by task, a function of `rngs` that makes its head."""

    def __init__(
        self, config: ModelConfig, make_heads: Mapping[str, Callable[[nnx.Rngs], nnx.Module]], *, rngs: nnx.Rngs
    ):
        self.encoder = AVEncoder(config, rngs=rngs)
        self.tasks = tuple(make_heads)  # a replay captures what `heads.items()` returns, in place of it
        self.heads = nnx.Dict({task: make(rngs) for task, make in make_heads.items()})

    def __call__(
        self,
        x_BTD: jax.Array | Mapping[str, jax.Array],
        valid_BT: jax.Array,
        key: jax.Array | None,
        *others: Any,
        reversals: Mapping[str, jax.Array] | None = None,
    ) -> dict[str, jax.Array]:
        """What `ask` returns, from the encoder's `embed` output.

        x_BTD: or one of each modality, for heads that take the layers of each.
        """
        if isinstance(x_BTD, Mapping):
            layers = {name: self._layers(x, valid_BT, named(key, name)) for name, x in x_BTD.items()}
        else:
            layers = self._layers(x_BTD, valid_BT, key)
        return ask(self.heads, self.tasks, layers, valid_BT, key, *others, reversals=reversals)

    def _layers(self, x_BTD: jax.Array, valid_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        return self.encoder.all_layers(x_BTD, valid_BT, key).astype(jnp.float32)
