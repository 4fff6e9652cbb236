"""From the clips that are kept to the shards of the dataset: how large each is, and who makes and writes it.

On one machine its worker processes make clip after clip, and the process that asked for them writes. Past one machine
whole shards are dealt out: what clips hold is terabytes, which need not come by one machine.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.accounting import ReportRow
from data_prep.beam import BeamPipelines, one_of_many
from data_prep.builder import Shard, ShardJob, write_shard
from data_prep.processing import Made, Task, make_clip
from data_prep.sources import SourceClip
from data_prep.workers import Failed, OrderedMap
from mmpretrain import records

MANY_DRAWN = 100  # clips that are drawn, at 60 ms each: of fewer, processes would take longer to start

Patience = Callable[[SourceClip], float]
Rows = Mapping[str, ReportRow]


def shard_sizes(num_frames: Sequence[int], schema: records.Schema, shard_bytes: float) -> list[int]:
    """How many clips of these lengths, in their order, each shard takes, so that its arrays are that large at most."""
    frame_bytes = schema.mouth_size**2 + schema.face_size**2 + 2 * records.SAMPLES_PER_FRAME
    sizes, filled = [0], 0
    for count in num_frames:
        if sizes[-1] and filled + count * frame_bytes > shard_bytes:
            sizes, filled = [*sizes, 0], 0
        sizes[-1] += 1
        filled += count * frame_bytes
    return sizes


def shards_here(
    tasks: Sequence[Task],
    sizes: Sequence[int],
    rows: Rows,
    run: OrderedMap,
    patience: Patience,
    tell: Callable[[], object],
) -> list[Shard]:
    """The shards of one split, to be called in their order; they bring the rows up to date. tell: after every clip."""
    made = _make(tasks, run, patience)
    return [functools.partial(_kept, itertools.islice(made, size), rows, tell) for size in sizes]


def shards_apart(tasks: Sequence[Task], sizes: Sequence[int], rows: Rows, patience: Patience) -> list[Shard]:
    """The shards of one split, which `write_apart` can write."""
    left = iter(tasks)
    dealt = [list(itertools.islice(left, size)) for size in sizes]
    return [_ShardApart(own, {task.clip.clip_id: rows[task.clip.clip_id] for task in own}, patience) for own in dealt]


def write_apart(
    jobs: Sequence[ShardJob], pipelines: BeamPipelines, rows: dict[str, ReportRow], tell: Callable[[int], object]
) -> Iterator[list[records.IndexRow]]:
    """A `builder.WriteShards`: each shard is written by whichever worker gets it. tell: how many clips are done."""
    for index, of_shard in pipelines.each(_write_apart, jobs):
        rows |= of_shard
        tell(len(of_shard))
        yield index


@dataclasses.dataclass(frozen=True)
class _ShardApart:
    """The clips of one shard, made where it is called. rows: theirs, brought up to date."""

    tasks: Sequence[Task]
    rows: Rows
    patience: Patience

    def __call__(self) -> Iterator[records.Clip]:
        return _kept(_make(self.tasks, one_of_many, self.patience), self.rows, lambda: None)


def _write_apart(job: ShardJob, scratch: Path) -> tuple[list[records.IndexRow], Rows]:
    """Two may write the same shard, if one is taken for dead: each has a place of its own and moves whole files."""
    with tempfile.TemporaryDirectory(dir=scratch) as draft:
        index = write_shard(dataclasses.replace(job, folder=Path(draft)))
        for file in Path(draft).iterdir():
            file.replace(job.folder / file.name)
    return index, job.shard.rows


def _make(tasks: Sequence[Task], run: OrderedMap, patience: Patience) -> Iterator[tuple[Task, Made | str | Failed]]:
    drawn = sum(task.clip.render is not None for task in tasks)
    if drawn < MANY_DRAWN and all(task.clip.path is None for task in tasks):
        return ((task, make_clip(task)) for task in tasks)
    return run(make_clip, tasks, patience_sec=lambda task: patience(task.clip))


def _kept(
    made: Iterable[tuple[Task, Made | str | Failed]], rows: Rows, tell: Callable[[], object]
) -> Iterator[records.Clip]:
    for task, result in made:
        tell()
        if isinstance(result, Made):
            rows[task.clip.clip_id].set_contents(result.clip, result.note, result.measures)
            yield result.clip
        else:
            failed = result if isinstance(result, Failed) else Failed(result)
            rows[task.clip.clip_id].refuse(failed.reason, failed.again)
