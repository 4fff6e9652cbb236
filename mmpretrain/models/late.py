"""Late fusion: a classifier of every modality by itself, and one answer of what those say whose modality a clip has.

Dims: B clips, M modalities, C classes, K outputs of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import ModelConfig
from mmpretrain.models.heads import Said
from mmpretrain.models.streams import Beside, Heard, rows_of
from mmpretrain.randomness import named

LATE = "late_"  # before the rule, in `finetune.fusion`
OF_CLASSES = ("class", "votes")  # kinds of labels whose K outputs are of classes that exclude one another


class LateHead(nnx.Module):
    """A head of every modality, each learned by itself, and the rule by which their answers are one.

    rule: "mean", "max" and "product" of the probabilities of each class; "weights": their mean by weights that add up
    to 1; "stacked": a logistic regression on the log probabilities. What is not there counts nothing: the mean, the
    weights' too, is over the modalities that a clip has. The parts that are fitted are set from outside, and are not
    learned: until then the weights are equal, and the regression is the geometric mean.
    """

    def __init__(
        self,
        make_head: Callable[[ModelConfig], nnx.Module],
        config: ModelConfig,
        kind: str,
        num_outputs: int,
        beside: Sequence[Beside],
        rule: str,
        *,
        rngs: nnx.Rngs,
    ):
        """make_head(config): of a modality. kind: of the task's labels. beside: what the encoder does not hear."""
        others, one_layer = [name for name, *_ in beside], dataclasses.replace(config, num_layers=0)
        members = {name: make_head(config) for name in config.modalities}
        self.members = nnx.Dict(members | {name: make_head(one_layer) for name in others})
        self.rows = rows_of(config, beside, rngs=rngs)
        self.names, self.kind, self.rule = (*config.modalities, *others), kind, rule
        M, K = len(self.names), num_outputs
        fitted = {}
        if rule == "weights":
            fitted = {"weights": jnp.full(M, 1 / M)}
        if rule == "stacked":
            kernel = jnp.tile(jnp.eye(K), (M, 1)) / M
            fitted = {"mean": jnp.zeros(M * K), "scale": jnp.ones(M * K), "kernel": kernel, "bias": jnp.zeros(K)}
        self.fitted = nnx.Dict({name: nnx.Param(x, axes=(None,) * x.ndim) for name, x in fitted.items()})

    def __call__(
        self, layers: Mapping[str, jax.Array], valid_BT: jax.Array, key: jax.Array | None, heard: Heard
    ) -> Said:
        """float32 [B, K]; aside `members` [B, M, K], what each says, and `there`, bool [B, M].

        layers: [L + 1, B, T, D] of each modality of the encoder, of which it heard that one alone.
        """
        said, there = [], []
        for name in self.names:
            if name in layers:
                x_LBSD, valid_BS, there_B = layers[name], valid_BT, heard.present[name]
            else:
                stream = heard.beside[name]
                x_LBSD, valid_BS, there_B = self.rows[name](stream)[None], stream.valid_BL, stream.there_B
            said.append(self.members[name](x_LBSD, valid_BS, named(key, name)))
            there.append(there_B)
        said_BMK, there_BM = jnp.stack(said, axis=1), jnp.stack(there, axis=1)
        fitted = {name: x[...] for name, x in self.fitted.items()}
        return fused(said_BMK, there_BM, self.kind, self.rule, fitted), {"members": said_BMK, "there": there_BM}


def fused(said_BMK: jax.Array, there_BM: jax.Array, kind: str, rule: str, fitted: Mapping[str, jax.Array]) -> jax.Array:
    """[B, K] of what the modalities say, as a head says it: logits, log odds or numbers, by the kind of the labels.

    Where one is there it is what that one says, other than for "stacked"; where none is, zeros.
    """
    share_BM = there_BM * fitted.get("weights", jnp.ones(there_BM.shape[1]))
    share_BM = share_BM / jnp.maximum(share_BM.sum(1, keepdims=True), 1e-30)
    if kind == "value":
        return (jnp.where(there_BM[..., None], said_BMK, 0) * share_BM[..., None]).sum(1)
    if rule == "stacked":
        x = (log_probs_of(said_BMK, there_BM) - fitted["mean"]) / fitted["scale"]
        return x @ fitted["kernel"] + fitted["bias"]
    if kind in OF_CLASSES:
        return _together(jax.nn.log_softmax(said_BMK), there_BM, share_BM, rule)
    yes_no = jnp.stack([jax.nn.log_sigmoid(-said_BMK), jax.nn.log_sigmoid(said_BMK)], axis=-1)  # [B, M, K, 2]
    each = jax.vmap(lambda said_BM2: _together(said_BM2, there_BM, share_BM, rule), in_axes=2, out_axes=1)
    both_BK2 = each(yes_no)
    return both_BK2[..., 1] - both_BK2[..., 0]


def log_probs_of(said_BMK: jax.Array, there_BM: jax.Array) -> jax.Array:
    """[B, M K]: what the regression of "stacked" takes, log probabilities less their mean over the classes, and 0 of
    a modality that is not there, as of one that holds all classes for equally likely."""
    centred = said_BMK - said_BMK.mean(-1, keepdims=True)
    return jnp.where(there_BM[..., None], centred, 0).reshape(said_BMK.shape[0], -1)


def _together(log_p_BMC: jax.Array, there_BM: jax.Array, share_BM: jax.Array, rule: str) -> jax.Array:
    """Log probabilities [B, C]; zeros where nothing is there."""
    there_BM1, least = there_BM[..., None], jnp.finfo(jnp.float32).min
    if rule == "product":
        joined = jnp.where(there_BM1, log_p_BMC, 0).sum(1)
    elif rule == "max":
        joined = jnp.where(there_BM1, log_p_BMC, least).max(1)
    else:
        joined = jax.nn.logsumexp(log_p_BMC, axis=1, b=share_BM[..., None])
    some_B1 = there_BM.any(1, keepdims=True)
    return jax.nn.log_softmax(jnp.where(some_B1, joined, 0))
