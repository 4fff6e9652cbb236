"""Saving and restoring the train state of a stage, through Orbax.

A checkpoint is the state after `step` updates, any tree of arrays, plus a small JSON (`extra`). Orbax writes into a
temporary folder and renames it, so one that was interrupted is never found by `latest`. The digests of its files are in
it before it has its name (`sealed_items`) and are checked before it is read: one without them is damaged, like one with
a changed bit. What cannot be read for now (the disk or the network gives an error) is tried again and then ends the
run; it is not called damaged.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath

from mmpretrain.files import DamagedError
from mmpretrain.observe.progress import log
from mmpretrain.output import BRIEF, one_line
from mmpretrain.parallel.processes import gather, on_main
from mmpretrain.train.sealed_items import EXTRA, STATE, check_items, handlers

State = TypeVar("State")
Value = TypeVar("Value")

AGAIN_AFTER_SEC = (1, 5, 15, 40)  # the waits between the attempts to read what cannot be read for now

# How TensorStore and XLA say that something else than the content of a file is wrong. A file that is missing (2), a
# folder in its place (21) or a file in the place of a folder (20) is damage.
_ELSEWHERE = r"UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|PERMISSION_DENIED|ABORTED|CANCELLED"
_NOT_DAMAGE = re.compile(rf"(OS error |os_error_code=')(?!(2|20|21)\b)|{_ELSEWHERE}")
_OF_DISK = re.compile(
    rf"OS error |os_error_code|Error writing|{_ELSEWHERE}"
)  # that a disk does not take what is written
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Checkpointer:
    """The checkpoints of one folder; the last `keep` stay. Saving is asynchronous: `wait` before relying on it.

    All processes of the run use it together. What a disk or the network does not take is an OSError that
    names the folder.
    """

    def __init__(self, path: str | Path, *, keep: int):
        self._path = Path(path).absolute()
        self._handled: BaseException | None = None  # what the caller was at when it came here: `Stopped`, say
        # Notes that Orbax makes beside what it saves are not needed, hence not read: nothing guards them.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, lightweight_initialize=True,
            async_options=ocp.AsyncOptions(barrier_sync_fn=self._meet),
        )  # fmt: skip
        with self._writing():
            self._manager = ocp.CheckpointManager(self._path, options=options, handler_registry=handlers())

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, as process 0 sees it."""
        return max(self._steps(), default=None)

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        """Starts to save; a checkpoint of that step from a run that was cut off after it is replaced.

        What goes wrong afterwards in any process is raised there, at the latest by `wait`.
        """
        with self._writing():
            if step in self._steps():
                self._manager.wait_until_finished()  # what is being written cannot be deleted
                self._manager.reload()
                self._manager.delete(step)
            args = ocp.args.Composite(**{STATE: ocp.args.StandardSave(state), EXTRA: ocp.args.JsonSave(extra)})
            self._manager.save(step, args=args, force=True)

    def restore(self, state: State) -> tuple[State, dict[str, Any]]:
        """The newest checkpoint that is as it was written, placed as the arrays of `state` are, and its `extra`.

        Newer ones that are damaged are said and put aside as STEP.damaged. Raises ValueError if all are, and OSError,
        with nothing put aside, if one cannot be read for another reason, in any process.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self._steps()):
            try:
                restored = _read(self._path / str(step), state)
            except DamagedError as error:
                damaged[step] = str(error)
            else:
                self._put_aside(damaged, step)
                return restored
        newest = max(damaged, default=None)
        raise ValueError(
            f"{self._path}: none of the checkpoints {sorted(damaged)} can be read; of {newest}: "
            f"{damaged.get(newest, '')}; remove the folder to start this stage anew"
        )

    def wait(self) -> None:
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        with self._writing():
            self._manager.close()

    def _meet(self, *, key: str, timeout_ms: int) -> None:
        """Waits for the other processes, for Orbax; with an error of its own it would wait in vain: they are elsewhere.

        They hear of the error when it has come out of `save` or `wait` here.
        """
        error = sys.exc_info()[1]
        if error is not None and error is not self._handled:
            raise error
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

    def _steps(self) -> list[int]:
        """In order. A shared folder may look different to each process for a while: process 0 says what is there."""
        return on_main(lambda: sorted(self._manager.all_steps()))

    def _put_aside(self, damaged: dict[int, str], used: int) -> None:
        for step, problem in damaged.items():
            log(f"{self._path / str(step)} is damaged ({problem}); going on from step {used}")
        if damaged:
            on_main(lambda: [_rename(self._path / str(step), f"{step}.damaged") for step in damaged])
            self._manager.reload()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._handled = sys.exc_info()[1]
        try:
            yield
        except Exception as error:
            if not isinstance(error, OSError) and not _OF_DISK.search(str(error)):
                raise  # what cannot be saved on any disk
            raise OSError(
                f"{self._path} cannot be written ({one_line(error, BRIEF)}); make room or give rights, then give the "
                f"same command again: it goes on from the last whole checkpoint"
            ) from error


def shapes(state: State) -> State:
    """The state without its numbers: what `restore` asks of its argument."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def read(path: str | Path, step: int, state: State) -> State:
    """The checkpoint of `step`, placed as the arrays of `state` are; nothing in the folder is touched.

    All processes read it together. Raises ValueError if it is damaged, and OSError if it cannot be read.
    """
    try:
        return _read(Path(path).absolute() / str(step), state)[0]
    except DamagedError as error:
        raise ValueError(f"{path}: checkpoint {step} cannot be read ({error})") from error


def _read(checkpoint: Path, state: State) -> tuple[State, dict[str, Any]]:
    """Raises DamagedError or OSError, in all processes alike."""
    _all_or_none(checkpoint, lambda: check_items(checkpoint))
    arrays, extra = ocp.StandardCheckpointHandler(), ocp.JsonCheckpointHandler()  # by themselves they wait for nobody
    folder, like = epath.Path(checkpoint), ocp.args.StandardRestore(shapes(state))
    restored = _all_or_none(
        checkpoint, lambda: (arrays.restore(folder / STATE, args=like), extra.restore(folder / EXTRA))
    )
    arrays.close()
    return restored


def _all_or_none(checkpoint: Path, work: Callable[[], Value]) -> Value:
    """Every process does its own work, as often as `AGAIN_AFTER_SEC` allows; what one cannot do ends it for all."""
    value, damage, failure = None, "", ""
    for wait in (*AGAIN_AFTER_SEC, None):
        try:
            value, failure = work(), ""
        except Exception as error:  # whatever half a file brings about in Orbax, TensorStore or JSON
            what = one_line(error, None if isinstance(error, DamagedError) else BRIEF)  # ours says in one line
            if not _passing(error):
                damage = what
                break
            failure = what
            if wait is not None:
                log(f"{checkpoint} cannot be read ({what}); trying again in {wait} s")
                time.sleep(wait)
                continue
        break
    said = gather([damage, failure])
    for process, (_, failure) in enumerate(said):
        if failure:
            where = f" by process {process}" if len(said) > 1 else ""
            raise OSError(
                f"{checkpoint} cannot be read{where}, not in {len(AGAIN_AFTER_SEC) + 1} attempts over "
                f"{sum(AGAIN_AFTER_SEC)} s ({failure}); nothing was changed: give the same command again when it can be"
            )
    if damage := next((damage for damage, _ in said if damage), ""):
        raise DamagedError(damage)
    return value


def _passing(error: BaseException | None) -> bool:
    """Whether an error may be of the disk, the network or the machine, and not of what is in a file."""
    while error is not None:
        of_system = isinstance(error, OSError | MemoryError) and not isinstance(error, _MISSING)
        if of_system or _NOT_DAMAGE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _rename(path: Path, name: str) -> None:
    shutil.rmtree(path.with_name(name), ignore_errors=True)
    path.rename(path.with_name(name))
