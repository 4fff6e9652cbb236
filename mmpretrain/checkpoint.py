"""Saving and restoring the train state of a stage, through Orbax.

A checkpoint is the state after `step` updates, any tree of arrays, plus a small JSON (`extra`). Orbax writes into a
temporary folder and renames it, so one that was interrupted is never found by `latest`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

State = TypeVar("State")


class Checkpointer:
    """The checkpoints of one folder; the last `keep` stay. Saving is asynchronous: `wait` before relying on it."""

    def __init__(self, path: str | Path, *, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(Path(path).absolute(), options=options)

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        """Starts to save; a checkpoint of that step from a run that was cut off after it is replaced."""
        if step in self._manager.all_steps():
            self.wait()  # what is being written cannot be deleted
            self._manager.delete(step)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(extra))
        self._manager.save(step, args=args, force=True)

    def restore(self, state: State) -> tuple[State, dict[str, Any]]:
        """The newest checkpoint, placed as the arrays of `state` are, and its `extra`."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), extra=ocp.args.JsonRestore())
        restored = self._manager.restore(self.latest(), args=args)
        return restored["state"], restored["extra"]

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()
