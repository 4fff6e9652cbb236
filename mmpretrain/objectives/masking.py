"""Which frames are hidden, and what is put in their place (spec, section 8).

Masks are data: an objective draws them once a step and a test can hand in others. Each clip has a key of its own, so
that what is drawn for it depends on no other clip, on no padding and on no mesh.
Dims: B clips, T frames.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mmpretrain.config import MaskingConfig
from mmpretrain.randomness import named

MIN_SPANS = 2


def span_mask(
    keys_B: jax.Array, valid_BT: jax.Array, *, prob: float, span_frames: int, equal_counts: bool = False
) -> jax.Array:
    """Marks spans so that about `prob` of each clip's real frames would be masked if no two spans overlapped.

    A clip of z frames gets max(2, floor(prob z / span + u)) spans, u uniform, at distinct starts from 0 .. z - span, so
    every real frame can be masked (the reference leaves out the last start). A clip shorter than a span uses shorter
    spans. Every clip with at least one real frame gets a masked one; none reaches into padding. equal_counts: of each
    clip, only as many frames stay masked, drawn one by one, as the clip with the fewest has (the reference).
    Returns bool [B, T], True where masked.
    """
    T = valid_BT.shape[1]
    size_B = valid_BT.sum(1)
    span_B = jnp.clip(jnp.minimum(span_frames, size_B // 2), 1)
    wanted = jnp.floor(prob * size_B / span_frames + _uniform(keys_B, "count")).astype(jnp.int32)
    time = jnp.arange(T)
    is_start = (time <= (size_B - span_B)[:, None]) & valid_BT
    # The `wanted` smallest of one random number per allowed start: a draw without replacement.
    score = jnp.where(is_start, _uniform(keys_B, "starts", T), jnp.inf)
    rank = jnp.argsort(jnp.argsort(score, axis=1), axis=1)
    starts = is_start & (rank < jnp.maximum(wanted, MIN_SPANS)[:, None])
    # A frame is covered when a start lies among the last `span` frames up to it.
    last_start = jax.lax.cummax(jnp.where(starts, time, -T - span_frames), axis=1)
    mask = (time - last_start < span_B[:, None]) & valid_BT
    return _equalise(keys_B, mask, size_B > 0) if equal_counts else mask


def most_visible(num_frames: int, *, prob: float, span_frames: int) -> int:
    """Of so many frames, how many may stay visible where the ResNet is to see a fixed number of them.

    The mean and one standard deviation of what a given number of spans at independent places leaves uncovered: e^-p of
    the frames, p being `prob`. Spans at distinct places that stay within a clip, as here, leave somewhat less.
    """
    if prob == 0:
        return num_frames
    share = math.exp(-prob)
    variance = num_frames * span_frames * share**2 * (2 * (math.exp(prob) - 1 - prob) / prob - prob)
    return min(num_frames, math.ceil(num_frames * share + math.sqrt(variance)))


def picture_share(masking: MaskingConfig, num_frames: int) -> float:
    """The share of a batch's frames whose pictures go through the ResNet."""
    if not masking.visible_only:
        return 1.0
    return most_visible(num_frames, prob=masking.prob, span_frames=masking.span_frames) / num_frames


def mask_beyond(keys_B: jax.Array, mask_BT: jax.Array, valid_BT: jax.Array, most: int) -> jax.Array:
    """The mask with more frames, drawn one by one, where a clip has over `most` visible ones."""
    visible = valid_BT & ~mask_BT
    score = jnp.where(visible, _uniform(keys_B, "beyond", mask_BT.shape[1]), jnp.inf)
    rank = jnp.argsort(jnp.argsort(score, axis=1), axis=1)
    return mask_BT | (visible & (rank >= most))


def places(where_BT: jax.Array, most: int) -> jax.Array:
    """The frames that are marked, of each clip, in order: int32 [B, most], and T behind the last."""
    T = where_BT.shape[1]
    return jnp.sort(jnp.where(where_BT, jnp.arange(T), T), axis=1)[:, :most].astype(jnp.int32)


def _uniform(keys_B: jax.Array, name: str, *shape: int) -> jax.Array:
    """float32 [B, *shape] in [0, 1), of each clip's stream `name`; a longer shape begins with the same numbers."""
    return jax.vmap(lambda key: jax.random.uniform(named(key, name), shape))(keys_B)


def _equalise(keys_B: jax.Array, mask_BT: jax.Array, real_B: jax.Array) -> jax.Array:
    fewest = jnp.where(real_B, mask_BT.sum(1), mask_BT.shape[1]).min()
    score = jnp.where(mask_BT, _uniform(keys_B, "equal counts", mask_BT.shape[1]), jnp.inf)
    return mask_BT & (jnp.argsort(jnp.argsort(score, axis=1), axis=1) < fewest)


def runs(mask_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each masked frame, where its contiguous run starts and ends (end exclusive): int32 [B, T] each."""
    T = mask_BT.shape[1]
    time = jnp.arange(T)
    start = jax.lax.cummax(jnp.where(mask_BT, -1, time), axis=1) + 1
    end = jax.lax.cummin(jnp.where(mask_BT, T, time), axis=1, reverse=True)
    return start, end


def same_clip_sources(keys_B: jax.Array, mask_BT: jax.Array, valid_BT: jax.Array) -> jax.Array:
    """For each frame, the frame of the same clip that stands in its place: itself where unmasked (spec, section 8.2).

    A masked run of n frames from s is replaced by a stretch that starts at a uniform draw from the real frames outside
    [s - n, e), so it overlaps the run on neither side unless the clip ends first; frame i of the run becomes frame
    min(o + i, last). If nothing is outside, o is 0. Returns int32 [B, T].
    """
    B, T = mask_BT.shape
    time = jnp.broadcast_to(jnp.arange(T), (B, T))
    size = valid_BT.sum(1, keepdims=True)
    start, end = runs(mask_BT)
    before = jnp.maximum(0, start - (end - start))  # candidates are 0 .. before-1 and end .. size-1
    candidates = before + jnp.maximum(size - end, 0)
    u = jnp.take_along_axis(_uniform(keys_B, "sources", T), jnp.minimum(start, T - 1), axis=1)  # one draw per run
    pick = jnp.minimum((u * candidates).astype(jnp.int32), candidates - 1)
    offset = jnp.where(candidates > 0, jnp.where(pick < before, pick, pick - before + end), 0)
    source = jnp.minimum(offset + time - start, jnp.maximum(size - 1, 0))
    return jnp.where(mask_BT, source, time)


def other_clips(keys_B: jax.Array, valid_BT: jax.Array) -> jax.Array:
    """For each clip, the clip a number of places further on among the real ones: int32 [B].

    The number is drawn once, by the key of the first row. The other clip's pictures take the places of hidden ones,
    frame for frame, where sources are not of the same clip.
    """
    real_B = valid_BT.any(1)
    count = real_B.sum()
    order = jnp.argsort(~real_B, stable=True)  # real clips first
    shift = jax.random.randint(named(keys_B[0], "other clip"), (), 1, jnp.maximum(count, 2))
    position = jnp.cumsum(real_B) - 1
    return jnp.where(real_B, order[(position + shift) % jnp.maximum(count, 1)], jnp.arange(len(real_B)))


def modality_use(
    keys_B: jax.Array,
    has_audio_B: jax.Array,
    has_video_B: jax.Array,
    *,
    prob: float,
    audio_prob: float,
    whole_batch: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Drops, per clip and with probability `prob`, one of its modalities: the audio with `audio_prob`, else the video.

    A clip that has only one modality keeps it. whole_batch: one draw for all clips, by the key of the first (the
    reference). Returns use_audio_B and use_video_B, bool.
    """
    both = has_audio_B & has_video_B
    keys_B = keys_B[:1] if whole_batch else keys_B
    drop = both & (_uniform(keys_B, "whether to drop") < prob)
    audio = _uniform(keys_B, "which to drop") < audio_prob
    return has_audio_B & ~(drop & audio), has_video_B & ~(drop & ~audio)
