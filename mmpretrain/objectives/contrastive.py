"""Losses by which clips of one class come to lie close together. Dims: B clips, D numbers of an embedding of length 1.

Both are of a whole batch: a clip is compared with all others of it. Clips labelled -1 take no part.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

FAR = 4.0  # the largest squared distance that there can be


def supervised_contrastive(z_BD: jax.Array, label_B: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
    """Loss [B], and bool [B], whether a clip has one: it does if another clip is of its class (Khosla et al. 2020).

    -1/|P| sum over p in P of log(exp(z.z_p / temperature) / sum over a of exp(z.z_a / temperature)), P being the other
    clips of its class and a all other clips: their L_out.
    """
    same_BB, other_BB = _pairs(label_B)
    logits_BB = jnp.where(other_BB, _similarity(z_BD) / temperature, -jnp.inf)
    top_B1 = jnp.maximum(logits_BB.max(1, keepdims=True), -1 / temperature)  # of a clip without others it is -inf
    sum_B1 = jnp.exp(logits_BB - top_B1).sum(1, keepdims=True)
    log_p_BB = jnp.where(same_BB, logits_BB - top_B1 - jnp.log(jnp.where(sum_B1 > 0, sum_B1, 1)), 0)
    count_B = same_BB.sum(1)
    return -log_p_BB.sum(1) / jnp.maximum(count_B, 1), count_B > 0


def semi_hard_triplet(z_BD: jax.Array, label_B: jax.Array, margin: float) -> tuple[jax.Array, jax.Array]:
    """Loss [B], and bool [B], whether a clip has one: there is another of its class, and one of another class.

    The mean over the clips p of its class of max(0, d(p) - d(n) + margin), d being squared distances and n the nearest
    clip of another class that is farther than p, or, where none is, the farthest (Schroff, Kalenichenko, Philbin 2015).
    Takes memory for B x B x B numbers.
    """
    same_BB, other_BB = _pairs(label_B)
    negative_BB = other_BB & ~same_BB
    distance_BB = 2 - 2 * _similarity(z_BD)
    farther_BBB = negative_BB[:, None, :] & (distance_BB[:, None, :] > distance_BB[:, :, None])
    nearest_BB = jnp.where(farther_BBB, distance_BB[:, None, :], FAR).min(-1)
    farthest_B1 = jnp.where(negative_BB, distance_BB, 0).max(1, keepdims=True)
    negative = jnp.where(farther_BBB.any(-1), nearest_BB, farthest_B1)
    loss_BB = jnp.where(same_BB, jnp.maximum(distance_BB - negative + margin, 0), 0)
    return loss_BB.sum(1) / jnp.maximum(same_BB.sum(1), 1), same_BB.any(1) & negative_BB.any(1)


def _similarity(z_BD: jax.Array) -> jax.Array:
    return jnp.matmul(z_BD, z_BD.T, precision=jax.lax.Precision.HIGHEST)  # over a temperature, 16 bits would show


def _pairs(label_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """bool [B, B] each: which other clips are of a clip's class, and which are labelled at all."""
    known_B = label_B >= 0
    other_BB = known_B[:, None] & known_B & ~jnp.eye(len(label_B), dtype=bool)
    return other_BB & (label_B[:, None] == label_B), other_BB
