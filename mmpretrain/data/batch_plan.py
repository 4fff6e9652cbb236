"""Which clips make the batch of step s: a pure function of the clips' lengths, the seed and s, asked for in any order.

Batches have a small fixed set of shapes (B clips, T frames) of about the same B * T. Nothing here reads a clip, and no
loop of Python passes over clips or batches: 5 million clips are planned in a second.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from mmpretrain import randomness
from mmpretrain.data.windows import WINDOW_FRAMES, windows

BATCH_FRAMES = "data.batch_frames"  # the field of a recipe, unless a stage has one of its own
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
    strata: int [N, K], what each clip is of, such as a class, and within it a corpus and a speaker: the clips of a
    bucket are then not shuffled but dealt out, so that of all of these every batch has its share (`spread`).
    field: of the recipe that says `batch_frames`, for messages.
    Threads may share it. An epoch is planned once, and the next one in the background when half of it has been asked
    for. Raises ValueError if there is no clip, no weight is positive, or `batch_frames` cannot hold `multiple` clips.
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
        strata: np.ndarray | None = None,
        field: str = BATCH_FRAMES,
    ):
        weights = np.ones(len(lengths)) if weights is None else np.asarray(weights)
        if not np.any(weights > 0):
            raise ValueError(f"data.corpora: no clip of {len(lengths)} has a positive weight; set one above 0")
        self._lengths = np.asarray(lengths, np.int32)
        self._seed, self._strata = seed, strata
        self._groups = _groups(self._lengths, weights, bucket_frames)
        self._batches: dict[int, tuple[int, int]] = {}  # T: (batches an epoch, clips in each)
        left_over = 0
        longest = max(self._groups)
        for num_frames in sorted(self._groups):
            size = batch_size(num_frames, batch_frames=batch_frames, multiple=multiple, field=field)
            available = left_over + sum(count for _, count in self._groups[num_frames])
            num_batches = -(-available // size) if num_frames == longest else available // size
            left_over = available - num_batches * size
            self._batches[num_frames] = (num_batches, size)
        self.shapes: tuple[tuple[int, int], ...] = tuple((b, t) for t, (n, b) in self._batches.items() if n)
        self.num_batches_per_epoch: int = sum(n for n, _ in self._batches.values())
        self._epochs: dict[int, Future[_Batches]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, step: int) -> PlannedBatch:
        epoch, position = divmod(step, self.num_batches_per_epoch)
        batches = self._epoch(epoch)
        if 2 * position >= self.num_batches_per_epoch:
            self._plan_ahead(epoch + 1)
        return PlannedBatch(step, epoch, *batches[position])

    @functools.cached_property
    def padding_share(self) -> float:
        """The share of an epoch's frames that is padding."""
        batches = self._epoch(0)
        return 1 - batches.real_frames(self._lengths) / batches.num_frames

    @property
    def frames_per_step(self) -> float:
        """Real frames of a batch, the mean over an epoch."""
        total = sum(num_batches * size * num_frames for num_frames, (num_batches, size) in self._batches.items())
        return (1 - self.padding_share) * total / self.num_batches_per_epoch

    def summary(self) -> str:
        """One line for the log."""
        shapes = ", ".join(f"{size} x {num_frames}" for size, num_frames in self.shapes)
        return (
            f"{self.num_batches_per_epoch} batches in {len(self.shapes)} shapes of clips x frames ({shapes}), "
            f"{100 * self.padding_share:.1f} % padding"
        )

    def _epoch(self, epoch: int) -> _Batches:
        """The batches of an epoch. One thread plans them, and others that ask meanwhile wait for it."""
        mine = self._claim(epoch)
        if mine is not None:
            self._fulfil(mine, epoch)
            return mine.result()
        with self._lock:
            planned = self._epochs.get(epoch)
        return self._epoch(epoch) if planned is None else planned.result()

    def _plan_ahead(self, epoch: int) -> None:
        mine = self._claim(epoch)
        if mine is not None:
            threading.Thread(target=self._fulfil, args=(mine, epoch), name=f"plan of epoch {epoch}").start()

    def _claim(self, epoch: int) -> Future[_Batches] | None:
        """What the caller is to fulfil; None where it is there or somebody is at it."""
        with self._lock:
            if epoch in self._epochs:
                return None
            # The epoch before is kept for threads still at its end.
            near = {e: planned for e, planned in self._epochs.items() if abs(e - epoch) == 1}
            self._epochs = near | {epoch: Future()}
            return self._epochs[epoch]

    def _fulfil(self, planned: Future[_Batches], epoch: int) -> None:
        try:
            planned.set_result(self._plan_epoch(epoch))
        except BaseException as error:
            planned.set_exception(error)

    def _plan_epoch(self, epoch: int) -> _Batches:
        rng = randomness.generator(self._seed, "plan", epoch)
        drawn = {t: np.concatenate([_draw(clips, count, rng) for clips, count in g]) for t, g in self._groups.items()}
        buckets = {}
        left_over = np.zeros(0, np.int32)
        for num_frames, (num_batches, size) in self._batches.items():
            pool = rng.permutation(np.concatenate([left_over, drawn[num_frames]]))
            if self._strata is not None:
                pool = pool[spread(self._strata[pool], rng)]
            if missing := max(0, num_batches * size - len(pool)):
                last = pool[(num_batches - 1) * size :]
                everything = np.concatenate(list(drawn.values()))
                pool = np.concatenate([pool, _fillers(everything, last, missing, len(self._lengths), rng)])
            buckets[num_frames] = pool[: num_batches * size].reshape(num_batches, size)
            left_over = pool[num_batches * size :]
        order = rng.permutation(self.num_batches_per_epoch)
        return _Batches(buckets, _occurrences(buckets, order), order)


class EvaluationPlan:
    """Every clip exactly once and never cropped, in a fixed order: by bucket, then as in the table.

    Clips beyond the longest bucket have buckets of their own, and those beyond `WINDOW_FRAMES` come in `windows`, whose
    numbers are their `occurrences`: one after the other, in the same row of batches that follow each other, hence on
    the same device. Batches hold at least `multiple` clips, whatever `batch_frames`; the last of a bucket is filled up
    with rows of -1. Has `len(plan)` batches, `plan[step]`.
    """

    def __init__(self, lengths: np.ndarray, *, batch_frames: int, bucket_frames: Sequence[int], multiple: int):
        lengths_N = np.asarray(lengths, np.int64)
        bucket_N = _buckets(lengths_N, bucket_frames)
        beyond = lengths_N > bucket_N
        bucket_N[beyond] = -(-lengths_N[beyond] // LONG_BUCKET_STEP) * LONG_BUCKET_STEP
        bucket_N = np.minimum(bucket_N, WINDOW_FRAMES)
        buckets, before = {}, {}
        for num_frames in np.unique(bucket_N).tolist():
            clips = np.flatnonzero(bucket_N == num_frames)
            # A bucket of few clips has a smaller batch instead of many filler rows.
            few = -(-len(clips) // multiple) * multiple
            size = min(max(_batch_size(num_frames, batch_frames, multiple), multiple), few)
            if num_frames == WINDOW_FRAMES:
                buckets[num_frames], before[num_frames] = _in_rows(clips, lengths_N[clips], size)
                continue
            rows = np.full(-(-len(clips) // size) * size, -1, np.int32)
            rows[: len(clips)] = clips
            buckets[num_frames] = rows.reshape(-1, size)
            before[num_frames] = np.zeros_like(buckets[num_frames])
        self._planned = _Batches(buckets, before)
        self.shapes: tuple[tuple[int, int], ...] = tuple((rows.shape[1], t) for t, rows in buckets.items())
        self.num_batches_per_epoch: int = len(self._planned)

    def __len__(self) -> int:
        return self.num_batches_per_epoch

    def __getitem__(self, step: int) -> PlannedBatch:
        return PlannedBatch(step, 0, *self._planned[step])


def _in_rows(clips: np.ndarray, lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Batches of `size` rows, int32 [batches, size] each: the clip of each row (-1: none), and which of its windows.

    The windows of a clip follow each other in one row, the one that is free first.
    """
    rows: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    free = [(0, b) for b in range(size)]
    for clip, num_frames in zip(clips.tolist(), lengths.tolist(), strict=True):
        at, b = heapq.heappop(free)
        count = len(windows(num_frames))
        rows[b] += [(clip, window) for window in range(count)]
        heapq.heappush(free, (at + count, b))
    planned = np.array(list(itertools.zip_longest(*rows, fillvalue=(-1, 0))), np.int32).reshape(-1, size, 2)
    return planned[..., 0], planned[..., 1]


class _Batches:
    """Batches in order. buckets: by T their clips, int32 [batches, B]. order: of all of them; None: as they are.

    before: by T how often each clip came before, int32 [batches, B].
    """

    def __init__(self, buckets: dict[int, np.ndarray], before: dict[int, np.ndarray], order: np.ndarray | None = None):
        self._buckets, self._before, self._order = buckets, before, order
        self._ends = np.cumsum([len(clips) for clips in buckets.values()], dtype=int)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, position: int) -> tuple[int, np.ndarray, np.ndarray]:
        """(T, clips int64 [B], occurrences int64 [B])."""
        if not 0 <= position < len(self):
            raise IndexError(f"batch {position} of {len(self)}")
        number = position if self._order is None else int(self._order[position])
        bucket = int(np.searchsorted(self._ends, number, side="right"))
        num_frames, clips = list(self._buckets.items())[bucket]
        row = number - self._ends[bucket]
        return num_frames, clips[row].astype(np.int64), self._before[num_frames][row].astype(np.int64)

    @property
    def num_frames(self) -> int:
        """Padding included."""
        return sum(num_frames * clips.size for num_frames, clips in self._buckets.items())

    def real_frames(self, lengths_N: np.ndarray) -> int:
        """Without padding. No row may be a filler of -1."""
        cut = (np.minimum(lengths_N[clips], num_frames).sum(dtype=int) for num_frames, clips in self._buckets.items())
        return int(sum(cut))


def _buckets(lengths_N: np.ndarray, bucket_frames: Sequence[int]) -> np.ndarray:
    """int64 [N]: the shortest bucket that holds each clip, else the longest one."""
    buckets = np.array(sorted(bucket_frames), np.int64)
    return buckets[np.minimum(np.searchsorted(buckets, lengths_N), len(buckets) - 1)]


def _batch_size(num_frames: int, batch_frames: int, multiple: int) -> int:
    return batch_frames // (num_frames * multiple) * multiple


def batch_size(num_frames: int, *, batch_frames: int, multiple: int, field: str = BATCH_FRAMES) -> int:
    """The clips of a training batch of `num_frames`. Raises ValueError if `batch_frames` cannot hold `multiple`."""
    size = _batch_size(num_frames, batch_frames, multiple)
    if not size:
        raise ValueError(
            f"{field}={batch_frames} does not hold {multiple} clips (data.batch_multiple) of {num_frames} frames; "
            f"raise it to {multiple * num_frames} or shorten data.bucket_frames"
        )
    return size


def _groups(lengths_N, weights_N, bucket_frames) -> dict[int, list[tuple[np.ndarray, int]]]:
    """For each bucket in use, by length: the clips of each weight, and how many an epoch takes (at least one)."""
    bucket_N = _buckets(lengths_N, bucket_frames)
    groups = {}
    for num_frames in np.unique(bucket_N[weights_N > 0]).tolist():
        here = np.flatnonzero(bucket_N == num_frames).astype(np.int32)
        weights_here = weights_N[here]
        weights = [weight for weight in np.unique(weights_here).tolist() if weight > 0]
        members = [(here[weights_here == weight], weight) for weight in weights]
        groups[num_frames] = [(clips, max(1, round(weight * len(clips)))) for clips, weight in members]
    return groups


def _draw(clips: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the clips: all of them as often as that goes, the rest drawn without replacement."""
    repeats, rest = divmod(count, len(clips))
    return np.concatenate([np.tile(clips, repeats), rng.permutation(clips)[:rest]])


def spread(strata_NK: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order of N rows in which those that agree in the first column come at even distances.

    So do, among these, those that agree in the second column too, and so on; rows that agree in all stay in order.
    """
    key_N = np.arange(len(strata_NK), dtype=float)
    for depth in range(strata_NK.shape[1], 0, -1):
        _, group_N, count_G = np.unique(strata_NK[:, :depth], axis=0, return_inverse=True, return_counts=True)
        order, group_N = np.lexsort((key_N, group_N.ravel())), group_N.ravel()
        rank_N = np.empty(len(key_N))
        rank_N[order] = np.arange(len(key_N)) - np.repeat(np.cumsum(count_G) - count_G, count_G)
        key_N = (rank_N + rng.random(len(count_G))[group_N]) / count_G[group_N]
    return np.argsort(key_N, kind="stable")


def _fillers(
    drawn: np.ndarray, batch: np.ndarray, missing: int, num_clips: int, rng: np.random.Generator
) -> np.ndarray:
    """`missing` clips to fill up `batch` with: others of the epoch, and repeats only where there are no more."""
    other_N = np.zeros(num_clips, bool)  # not by sets: sorting millions of clips takes most of a plan's time
    other_N[drawn] = True
    other_N[batch] = False
    others = rng.permutation(np.flatnonzero(other_N).astype(np.int32))[:missing]
    return np.concatenate([others, np.resize(rng.permutation(drawn), missing - len(others))])


def _occurrences(buckets: dict[int, np.ndarray], order: np.ndarray) -> dict[int, np.ndarray]:
    """int32 of the shapes of `buckets`: how often the same clip stands earlier in the epoch of this order."""
    if not buckets:
        return {}
    clips = np.concatenate([rows.ravel() for rows in buckets.values()])
    often = np.flatnonzero(np.bincount(clips)[clips] > 1)  # mostly few, or none
    batch = np.repeat(np.arange(len(order)), np.concatenate([np.full(len(r), r.shape[1]) for r in buckets.values()]))
    often = often[np.lexsort((np.argsort(order)[batch[often]], clips[often]))]
    before = np.zeros(len(clips), np.int32)
    before[often] = np.arange(len(often)) - np.searchsorted(clips[often], clips[often])
    parts = np.split(before, np.cumsum([rows.size for rows in buckets.values()])[:-1])
    return {t: part.reshape(rows.shape) for (t, rows), part in zip(buckets.items(), parts, strict=True)}
