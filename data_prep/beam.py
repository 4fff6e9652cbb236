"""Preparation by Apache Beam, past one machine: the same functions of a clip, wherever Beam's runner has workers.

What goes to workers and comes back lies in files of the prepared corpus's folder, which all of them see under the same
path; a pipeline has nothing but their numbers. So a job stays small however many clips there are, every runner does,
and a bundle that a runner tries again writes what it wrote before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.workers import Failed, Item, Result, ordered_map
from mmpretrain.files import whole_file
from mmpretrain.output import one_line

FOLDER = ".beam-"  # and a name of its own: what is left of an earlier run writes elsewhere
PIECES, MOST_CLIPS = 64, 64  # a piece of work has so few clips that there are so many pieces, but never more clips


@dataclasses.dataclass(frozen=True)
class BeamPipelines:
    """Runs functions as pipelines of Beam. Raises ValueError where that is not installed.

    options: Beam's, as on a command line; without a runner among them it is the one of this machine, with `num_workers`
    processes. output: the folder of the prepared corpus.
    """

    options: str
    output: Path
    num_workers: int

    def __post_init__(self) -> None:
        try:
            import apache_beam  # noqa: F401
        except ModuleNotFoundError as error:
            raise ValueError(
                "--beam needs Apache Beam, which is not installed; `pip install 'mmpretrain-jax[beam]'`"
            ) from error
        for left in self.output.glob(f"{FOLDER}*"):
            shutil.rmtree(left, ignore_errors=True)

    def ordered_map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, patience_sec: Callable[[Item], float]
    ) -> Iterator[tuple[Item, Result | Failed]]:
        """As that of `workers.py`, which runs in each of Beam's workers for a piece of the items."""
        items = list(items)
        size = min(max(1, -(-len(items) // PIECES)), MOST_CLIPS)
        pieces = [items[start : start + size] for start in range(0, len(items), size)]
        done = self.each(functools.partial(_map_piece, function, patience_sec), pieces)
        for piece, results in zip(pieces, done, strict=True):
            yield from zip(piece, results, strict=True)

    def each(self, function: Callable[[Any, Path], Any], elements: Sequence[Any]) -> Iterator[Any]:
        """Yields function(element, scratch) for every element, in their order, when all are done.

        function may be called more than once for an element, at the same time even. scratch: a folder that goes away.
        Raises OSError, ValueError and RuntimeError of the function, and ValueError where the pipeline does not run.
        """
        scratch = self.output / f"{FOLDER}{secrets.token_hex(4)}"
        scratch.mkdir()
        try:
            for number, element in enumerate(elements):
                _todo(scratch, number).write_bytes(_coder().encode(element))
            self._run(functools.partial(_work, function, scratch), len(elements))
            for number in range(len(elements)):
                yield _coder().decode(_done(scratch, number).read_bytes())
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run(self, work: functools.partial, count: int) -> None:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        scratch = work.args[1]
        here = ["--direct_running_mode=multi_processing", f"--direct_num_workers={self.num_workers}"]
        quiet = ["--default_sdk_harness_log_level=ERROR"]
        try:
            pipeline = beam.Pipeline(options=PipelineOptions([*here, *quiet, *shlex.split(self.options)]))
            _ = pipeline | beam.Create(range(count)) | beam.Map(work)  # `Create` deals them out
            running = pipeline.run()
            try:
                running.wait_until_finish()
            except BaseException:
                with contextlib.suppress(Exception):
                    running.cancel()
                raise
        except Exception as error:
            if _error(scratch).exists():
                raise _coder().decode(_error(scratch).read_bytes()) from error
            said = one_line(error)[-400:]
            raise ValueError(
                f"--beam={self.options}: the pipeline does not run ({type(error).__name__}: {said})"
            ) from error
        if missing := sum(not _done(scratch, number).exists() for number in range(count)):
            raise ValueError(
                f"--beam={self.options}: {missing} of {count} results are not in {scratch}; all workers must see "
                "--source and --output under the paths that are given here"
            )


def one_of_many(
    function: Callable[[Item], Result], items: Iterable[Item], *, patience_sec: Callable[[Item], float]
) -> Iterator[tuple[Item, Result | Failed]]:
    """`workers.ordered_map` with a single process, in a worker of Beam: there is one for each core, and they share."""
    return ordered_map(function, items, 1, patience_sec, num_beside=(os.cpu_count() or 1) - 1)


def _map_piece(function, patience_sec, items: Sequence[Any], scratch: Path) -> list[Any]:
    return [result for _, result in one_of_many(function, items, patience_sec=patience_sec)]


def _work(function: Callable[[Any, Path], Any], scratch: Path, number: int) -> None:
    element = _coder().decode(_todo(scratch, number).read_bytes())
    try:
        result = function(element, scratch)
    except Exception as error:
        _write(_error(scratch), error)  # of which the runner would tell a traceback
        raise
    _write(_done(scratch, number), result)


def _write(path: Path, value: Any) -> None:
    with whole_file(path) as draft:
        draft.write_bytes(_coder().encode(value))


def _coder():
    """Beam's own, by which it passes everything to its workers."""
    from apache_beam.coders import PickleCoder

    return PickleCoder()


def _todo(scratch: Path, number: int) -> Path:
    return scratch / f"{number}.todo"


def _done(scratch: Path, number: int) -> Path:
    return scratch / f"{number}.done"


def _error(scratch: Path) -> Path:
    return scratch / "error"
