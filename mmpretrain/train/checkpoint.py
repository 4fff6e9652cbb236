"""Saving and restoring the train state of a stage, through Orbax.

A checkpoint is the state after `step` updates, any tree of arrays, plus a small JSON (`extra`). Orbax writes into a
temporary folder and renames it, so one that was interrupted is never found by `latest`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import gather, on_main

State = TypeVar("State")


class Checkpointer:
    """The checkpoints of one folder; the last `keep` stay. Saving is asynchronous: `wait` before relying on it.

    All processes of the run use it together. What cannot be written is an OSError that names the folder.
    """

    def __init__(self, path: str | Path, *, keep: int):
        self._path = Path(path).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        with self._writing():
            self._manager = ocp.CheckpointManager(self._path, options=options)

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        """Starts to save; a checkpoint of that step from a run that was cut off after it is replaced."""
        with self._writing():
            if step in self._manager.all_steps():
                self._manager.wait_until_finished()  # what is being written cannot be deleted
                self._manager.delete(step)
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(extra))
            self._manager.save(step, args=args, force=True)

    def restore(self, state: State) -> tuple[State, dict[str, Any]]:
        """The newest checkpoint that can be read, placed as the arrays of `state` are, and its `extra`.

        Newer ones that cannot be read are said and put aside as STEP.damaged. Raises ValueError if none can be read.
        """
        args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes(state)), extra=ocp.args.JsonRestore())
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored, problem = self._manager.restore(step, args=args), ""
            except Exception as error:  # whatever half a file brings about in Orbax, TensorStore or JSON
                restored, problem = None, f"{type(error).__name__}: {_one_line(error)}"
            problem = next(filter(None, gather(problem)), "")  # one process may read what another cannot
            if not problem:
                self._put_aside(damaged, step)
                return restored["state"], restored["extra"]
            damaged[step] = problem
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

    def _put_aside(self, damaged: dict[int, str], used: int) -> None:
        for step, problem in damaged.items():
            log(f"{self._path / str(step)} is damaged ({problem}); going on from step {used}")
        if damaged:
            on_main(lambda: [_rename(self._path / str(step), f"{step}.damaged") for step in damaged])
            self._manager.reload()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise OSError(
                f"{self._path} cannot be written ({_one_line(error)}); make room or give rights, then give the same "
                f"command again: it goes on from the last whole checkpoint"
            ) from error


def shapes(state: State) -> State:
    """The state without its numbers: what `restore` asks of its argument."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def read(path: str | Path, step: int, state: State) -> State:
    """The checkpoint of `step`, placed as the arrays of `state` are; nothing in the folder is touched.

    Raises ValueError if it cannot be read.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(Path(path).absolute() / str(step) / "state", shapes(state))
    except Exception as error:  # as in `Checkpointer.restore`
        raise ValueError(f"{path}: checkpoint {step} cannot be read ({_one_line(error)})") from error


def _rename(path: Path, name: str) -> None:
    shutil.rmtree(path.with_name(name), ignore_errors=True)
    path.rename(path.with_name(name))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
