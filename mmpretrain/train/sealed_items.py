"""The parts of a checkpoint as Orbax's own handlers write them, each with the digests of its files in `digests.json`.

A part is sealed before Orbax gives the checkpoint its name, off the training thread, and each process hashes the arrays
that it wrote itself. So a kill leaves a checkpoint that can be checked, or a folder whose name says that it is none.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mmpretrain.files import check_seal, digests, read_json, seal, sealed, write_json

STATE, EXTRA = "state", "extra"
OWN_FILES = "ocdbt.process_{}"  # the folder of what one process wrote of the arrays
THREADS = 4  # that hash at the same time


class SealedState(ocp.StandardCheckpointHandler):
    """Of a tree of arrays."""

    async def async_save(self, directory: Any, *args: Any, **kwargs: Any) -> list[ocp.future.Future]:
        written = await super().async_save(directory, *args, **kwargs) or []
        return [ocp.future.ChainedFuture(written, lambda: _digest_own(Path(directory)))]

    def finalize(self, directory: Any) -> None:
        """In process 0, when all processes have written and hashed theirs."""
        super().finalize(directory)
        known, notes = {}, [_note(Path(directory), process) for process in range(jax.process_count())]
        for note in notes:
            known |= read_json(note, if_missing={})
            note.unlink(missing_ok=True)
        seal(directory, known)


class SealedExtra(ocp.JsonCheckpointHandler):
    """Of a small JSON."""

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        seal(directory)


def handlers() -> ocp.handlers.CheckpointHandlerRegistry:
    """For a checkpoint of a `STATE` and an `EXTRA`."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    state, extra = SealedState(), SealedExtra()
    for name, args, handler in (
        (STATE, ocp.args.StandardSave, state), (STATE, ocp.args.StandardRestore, state),
        (EXTRA, ocp.args.JsonSave, extra), (EXTRA, ocp.args.JsonRestore, extra),
    ):  # fmt: skip
        registry.add(name, args, handler)
    return registry


def check_items(checkpoint: Path) -> None:
    """Raises DamagedError if a file of the checkpoint is not what was written; of the arrays each process sees a share.

    All that was sealed is checked; Orbax adds notes of its own later, which nobody reads.
    """
    check_seal(checkpoint / EXTRA, *sealed(checkpoint / EXTRA))
    sizes = {name: size for name, (size, _) in sealed(checkpoint / STATE).items()}
    largest_first = sorted(sizes, key=lambda name: (-sizes[name], name))
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(
            lambda name: check_seal(checkpoint / STATE, name),
            largest_first[jax.process_index() :: jax.process_count()],
        ):
            pass


def _digest_own(folder: Path) -> None:
    own = folder / OWN_FILES.format(jax.process_index())
    names = [path.relative_to(folder).as_posix() for path in own.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(THREADS) as threads:
        known = {}
        for one in threads.map(lambda name: digests(folder, [name]), names):
            known |= one
    write_json(_note(folder, jax.process_index()), known)


def _note(folder: Path, process: int) -> Path:
    """Where a process tells process 0 what it hashed."""
    return folder / f"digests.{process}.json"
