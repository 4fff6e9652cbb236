"""The reference's masks, written from its description in NumPy (spec, sections 8.1 and 8.2): what ours is measured by.

The two peculiarities that ours does not have can be turned off, and then a mask has the distribution of ours.
Dims: B clips, T frames.
"""

from __future__ import annotations

import numpy as np


def draw_mask(
    rng: np.random.RandomState,
    num_frames: int,
    lengths_B: list[int],
    *,
    prob: float,
    span: int,
    kind: str = "static",
    other: float = 0.0,
    min_spans: int = 2,
    padded: bool = True,
    equalize: bool = True,
    last_start: bool = False,
) -> np.ndarray:
    """bool [B, T], True where masked.

    kind, other: how the length of a span is drawn. padded: whether there is a padding mask; without one all clips have
    one number of spans. equalize: clips keep as many masked frames as the one with the fewest, drawn frame by frame.
    last_start: whether a span may end with the clip.
    """

    def num_spans(size: int) -> int:
        return max(min_spans, int(prob * size / span + rng.rand()))

    num_all = num_spans(num_frames)
    masked_B = []
    for size in lengths_B:
        count = num_spans(size) if padded else num_all
        spans = _span_lengths(rng, count, span, kind, other)
        shortest = min(spans)
        if size - shortest <= count:
            shortest = size - count - 1
        starts = rng.choice(size - shortest + last_start, count, replace=False)
        mask_T = np.zeros(num_frames, bool)
        for start, length in zip(starts, spans, strict=True):
            mask_T[start : start + length] = True
        masked_B.append(np.flatnonzero(mask_T[:size]))
    mask_BT = np.zeros((len(lengths_B), num_frames), bool)
    fewest = min(map(len, masked_B))
    for mask_T, masked in zip(mask_BT, masked_B, strict=True):
        if equalize and len(masked) > fewest:
            masked = rng.choice(masked, fewest, replace=False)
        mask_T[masked] = True
    return mask_BT


def _span_lengths(rng: np.random.RandomState, count: int, span: int, kind: str, other: float) -> np.ndarray:
    match kind:
        case "static":
            return np.full(count, span)
        case "uniform":
            return rng.randint(int(other), 2 * span + 1, size=count)
        case "normal":
            return np.maximum(1, np.round(rng.normal(span, other, size=count))).astype(int)
        case "poisson":
            return np.round(rng.poisson(span, size=count)).astype(int)
    raise ValueError(f"mask kind {kind!r} is not known")


def mask_runs(mask_BT: np.ndarray) -> list[tuple[int, int, int]]:
    """(clip, start, end) of each contiguous run, clip by clip, end exclusive."""
    edges = np.diff(np.pad(mask_BT.astype(int), ((0, 0), (1, 1))))
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return [(int(b), int(start), int(end)) for (b, start), (_, end) in zip(starts, ends, strict=True)]


def same_clip_sources(rng: np.random.RandomState, mask_BT: np.ndarray) -> np.ndarray:
    """int [B, T]: for each frame, the frame of its clip that stands in its place; padding counts as frames."""
    num_frames = mask_BT.shape[1]
    source_BT = np.tile(np.arange(num_frames), (len(mask_BT), 1))
    for b, start, end in mask_runs(mask_BT):
        outside = np.concatenate([np.arange(start - (end - start)), np.arange(end, num_frames)])
        first = rng.choice(outside, 1)[0] if len(outside) else 0
        source_BT[b, start:end] = np.minimum(first + np.arange(end - start), num_frames - 1)
    return source_BT
