"""Which clips make the batch of step s: a pure function of the clips' lengths, the seed and s, asked for in any order.

Batches have a small fixed set of shapes (B clips, T frames) of about the same B * T. Nothing here reads a clip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmpretrain import randomness

LONG_BUCKET_STEP = 100  # frames; evaluation rounds clips beyond the longest bucket up to a multiple of this


@dataclasses.dataclass(frozen=True, eq=False)
class PlannedBatch:
    """The clips of one step, padded or cropped to `num_frames`.

    clips: int64 [B], rows of the table, -1 for filler. occurrences: int64 [B], how often each came before in the epoch.
    """

    step: int
    epoch: int
    num_frames: int
    clips: np.ndarray
    occurrences: np.ndarray

    def take(self, rows: np.ndarray) -> PlannedBatch:
        """Some rows of it, such as those that one process makes."""
        return dataclasses.replace(self, clips=self.clips[rows], occurrences=self.occurrences[rows])


class BatchPlan:
    """Training batches: an endless sequence, `plan[step]`, in epochs of `num_batches_per_epoch`.

    In an epoch the clips are shuffled and each goes to the shortest bucket of T frames that holds it (beyond the
    longest: the longest, where it is cropped). Buckets are cut into batches of B(T) clips, the largest multiple of
    `multiple` with B * T <= batch_frames; what is left over moves on to the next longer bucket, and the last batch is
    filled up with other clips of the epoch. Hence every batch is full, and every epoch has the same number of batches
    of each of `shapes`, the (B, T) in use.

    lengths: int [N] in frames. weights: float [N], how often a clip appears in an epoch (default 1); the n clips of one
    bucket and weight w appear round(w * n) times together, a fractional part falling on other clips every epoch.
    Raises ValueError if there is no clip, no weight is positive, or `batch_frames` cannot hold `multiple` clips.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        batch_frames: int,
        bucket_frames: Sequence[int],
        multiple: int,
        seed: int,
        weights: np.ndarray | None = None,
    ):
        weights = np.ones(len(lengths)) if weights is None else np.asarray(weights)
        if not np.any(weights > 0):
            raise ValueError(f"data.corpora: no clip of {len(lengths)} has a positive weight; set one above 0")
        self._lengths = np.asarray(lengths, np.int64)
        self._seed = seed
        self._groups = _groups(self._lengths, weights, bucket_frames)
        self._batches: dict[int, tuple[int, int]] = {}  # T: (batches an epoch, clips in each)
        left_over = 0
        longest = max(self._groups)
        for num_frames in sorted(self._groups):
            size = batch_size(num_frames, batch_frames=batch_frames, multiple=multiple)
            available = left_over + sum(count for _, count in self._groups[num_frames])
            num_batches = -(-available // size) if num_frames == longest else available // size
            left_over = available - num_batches * size
            self._batches[num_frames] = (num_batches, size)
        self.shapes: tuple[tuple[int, int], ...] = tuple((b, t) for t, (n, b) in self._batches.items() if n)
        self.num_batches_per_epoch: int = sum(n for n, _ in self._batches.values())
        self._epochs: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}

    def __getitem__(self, step: int) -> PlannedBatch:
        epoch, position = divmod(step, self.num_batches_per_epoch)
        return PlannedBatch(step, epoch, *self._epoch(epoch)[position])

    @property
    def padding_share(self) -> float:
        """The share of an epoch's frames that is padding."""
        return _padding_share(self._lengths, [(num_frames, clips) for num_frames, clips, _ in self._epoch(0)])

    @property
    def frames_per_step(self) -> float:
        """Real frames of a batch, the mean over an epoch."""
        total = sum(num_frames * len(clips) for num_frames, clips, _ in self._epoch(0))
        return (1 - self.padding_share) * total / self.num_batches_per_epoch

    def summary(self) -> str:
        """One line for the log."""
        shapes = ", ".join(f"{size} x {num_frames}" for size, num_frames in self.shapes)
        return (
            f"{self.num_batches_per_epoch} batches in {len(self.shapes)} shapes of clips x frames ({shapes}), "
            f"{100 * self.padding_share:.1f} % padding"
        )

    def _epoch(self, epoch: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        if (batches := self._epochs.get(epoch)) is None:
            batches = self._plan_epoch(epoch)
            # The one before is kept for threads still at its end. Two threads may plan an epoch, with the same result.
            self._epochs = {e: b for e, b in self._epochs.items() if e == epoch - 1} | {epoch: batches}
        return batches

    def _plan_epoch(self, epoch: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Of each batch its frames, its clips and their occurrences."""
        rng = randomness.generator(self._seed, "plan", epoch)
        drawn = {t: np.concatenate([_draw(clips, count, rng) for clips, count in g]) for t, g in self._groups.items()}
        batches = []
        left_over = np.zeros(0, np.int64)
        for num_frames, (num_batches, size) in self._batches.items():
            pool = rng.permutation(np.concatenate([left_over, drawn[num_frames]]))
            if missing := max(0, num_batches * size - len(pool)):
                last = pool[(num_batches - 1) * size :]
                pool = np.concatenate([pool, _fillers(np.concatenate(list(drawn.values())), last, missing, rng)])
            batches += [(num_frames, clips) for clips in pool[: num_batches * size].reshape(num_batches, size)]
            left_over = pool[num_batches * size :]
        batches = [batches[i] for i in rng.permutation(len(batches))]
        before = _occurrences(np.concatenate([clips for _, clips in batches]))
        ends = np.cumsum([len(clips) for _, clips in batches])
        return [(*batch, of) for batch, of in zip(batches, np.split(before, ends[:-1]), strict=True)]


class EvaluationPlan:
    """Every clip exactly once and never cropped, in a fixed order: by bucket, then as in the table.

    Clips beyond the longest bucket have buckets of their own. Batches hold at least `multiple` clips, whatever
    `batch_frames`; the last of a bucket is filled up with rows of -1. Has `len(plan)` batches, `plan[step]`.
    """

    def __init__(self, lengths: np.ndarray, *, batch_frames: int, bucket_frames: Sequence[int], multiple: int):
        self._lengths = np.asarray(lengths, np.int64)
        bucket_N = _buckets(self._lengths, bucket_frames)
        beyond = self._lengths > bucket_N
        bucket_N[beyond] = -(-self._lengths[beyond] // LONG_BUCKET_STEP) * LONG_BUCKET_STEP
        self._planned: list[tuple[int, np.ndarray]] = []
        for num_frames in np.unique(bucket_N).tolist():
            clips = np.flatnonzero(bucket_N == num_frames)
            # A bucket of few clips has a smaller batch instead of many filler rows.
            few = -(-len(clips) // multiple) * multiple
            size = min(max(_batch_size(num_frames, batch_frames, multiple), multiple), few)
            rows = np.full(-(-len(clips) // size) * size, -1, np.int64)
            rows[: len(clips)] = clips
            self._planned += [(num_frames, batch) for batch in rows.reshape(-1, size)]
        self.shapes: tuple[tuple[int, int], ...] = tuple(dict.fromkeys((len(clips), t) for t, clips in self._planned))
        self.num_batches_per_epoch: int = len(self._planned)

    def __len__(self) -> int:
        return self.num_batches_per_epoch

    def __getitem__(self, step: int) -> PlannedBatch:
        num_frames, clips = self._planned[step]
        return PlannedBatch(step, 0, num_frames, clips, np.zeros(len(clips), np.int64))


def _buckets(lengths_N: np.ndarray, bucket_frames: Sequence[int]) -> np.ndarray:
    """int64 [N]: the shortest bucket that holds each clip, else the longest one."""
    buckets = np.array(sorted(bucket_frames), np.int64)
    return buckets[np.minimum(np.searchsorted(buckets, lengths_N), len(buckets) - 1)]


def _batch_size(num_frames: int, batch_frames: int, multiple: int) -> int:
    return batch_frames // (num_frames * multiple) * multiple


def batch_size(num_frames: int, *, batch_frames: int, multiple: int) -> int:
    """The clips of a training batch of `num_frames`. Raises ValueError if `batch_frames` cannot hold `multiple`."""
    size = _batch_size(num_frames, batch_frames, multiple)
    if not size:
        raise ValueError(
            f"data.batch_frames={batch_frames} does not hold {multiple} clips (the devices of the run) of "
            f"{num_frames} frames; raise it to {multiple * num_frames} or shorten data.bucket_frames"
        )
    return size


def _groups(lengths_N, weights_N, bucket_frames) -> dict[int, list[tuple[np.ndarray, int]]]:
    """For each bucket in use, by length: the clips of each weight, and how many an epoch takes (at least one)."""
    bucket_N = _buckets(lengths_N, bucket_frames)
    groups = {}
    for num_frames in np.unique(bucket_N[weights_N > 0]).tolist():
        here = bucket_N == num_frames
        weights = [weight for weight in np.unique(weights_N[here]).tolist() if weight > 0]
        members = [(np.flatnonzero(here & (weights_N == weight)), weight) for weight in weights]
        groups[num_frames] = [(clips, max(1, round(weight * len(clips)))) for clips, weight in members]
    return groups


def _draw(clips: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the clips: all of them as often as that goes, the rest drawn without replacement."""
    repeats, rest = divmod(count, len(clips))
    return np.concatenate([np.tile(clips, repeats), rng.permutation(clips)[:rest]])


def _fillers(drawn: np.ndarray, batch: np.ndarray, missing: int, rng: np.random.Generator) -> np.ndarray:
    """`missing` clips to fill up `batch` with: others of the epoch, and repeats only where there are no more."""
    others = rng.permutation(np.setdiff1d(drawn, batch))[:missing]
    return np.concatenate([others, np.resize(rng.permutation(drawn), missing - len(others))])


def _occurrences(clips: np.ndarray) -> np.ndarray:
    """int64 of that shape: how often the same clip stands earlier in the list."""
    before = np.zeros(len(clips), np.int64)
    often = np.flatnonzero(np.bincount(clips)[clips] > 1)  # mostly few, or none
    order = often[np.argsort(clips[often], kind="stable")]
    sorted_clips = clips[order]
    first = np.searchsorted(sorted_clips, sorted_clips)
    before[order] = np.arange(len(order)) - first
    return before


def _padding_share(lengths_N: np.ndarray, batches: list[tuple[int, np.ndarray]]) -> float:
    total = sum(num_frames * len(clips) for num_frames, clips in batches)
    real = sum(np.minimum(lengths_N[clips[clips >= 0]], num_frames).sum() for num_frames, clips in batches)
    return float(1 - real / total) if total else 0.0
