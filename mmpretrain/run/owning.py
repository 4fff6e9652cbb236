"""Whose a run's folder is: process 0 holds its lease, and all processes of the run see that it is one folder."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from mmpretrain.files import file_digest
from mmpretrain.lease import LEASES, Lease
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import gather, leave, on_main, when_leaving
from mmpretrain.records import CORPUS_FILE
from mmpretrain.run.paths import make_folder

WORKDIR = "--config.workdir"
SEEN_SEC = 75.0  # NFS clients may take a minute to see a new file
LOST_CODE = 2


@contextlib.contextmanager
def owned(workdir: Path, corpora: Sequence[str] = (), field: str = WORKDIR) -> Iterator[None]:
    """Inside, this run alone writes into `workdir`; a run that loses it to another ends at once, with `LOST_CODE`.

    corpora: folders that all processes must see alike. field: what names `workdir`. Raises HeldError where another run
    has it, and ValueError where it cannot be made, or naming a process that sees another folder than process 0.
    """
    make_folder(workdir, field)
    with contextlib.ExitStack() as stack:

        def take() -> list[str]:
            lease = stack.enter_context(Lease(workdir, field, on_lost=lambda line: leave(LOST_CODE, line), say=log))
            when_leaving(lease.release)
            return [lease.own.file.name, lease.own.token, lease.own.host]

        told = on_main(take)
        if jax.process_count() > 1:
            problems = [_unseen(workdir, *told), *_differing(corpora)]
            if found := [problem for each in gather(problems) for problem in each if problem]:
                raise ValueError(found[0])
        yield


def _unseen(workdir: Path, name: str, token: str, host: str) -> str:
    """What is wrong if this process does not find what process 0 wrote into the folder."""
    deadline = time.monotonic() + SEEN_SEC
    while True:
        with contextlib.suppress(OSError):
            if token in (workdir / LEASES / name).read_text():
                return ""
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return (
        f"{_me()} does not find in {workdir.absolute()} what process 0 on {host} wrote there; {WORKDIR} must be one "
        "folder that all processes share (on NFS, say), under the same path everywhere"
    )


def _differing(corpora: Sequence[str]) -> list[str]:
    """What is wrong with each of the corpora that this process sees otherwise than process 0."""
    files = [Path(path) / CORPUS_FILE for path in corpora]
    own = [file_digest(file) if file.exists() else "" for file in files]
    theirs = on_main(lambda: own)
    return [
        f"{_me()} sees another {file.absolute()} than process 0, or none; all processes must read the same corpora"
        for file, mine, other in zip(files, own, theirs, strict=True)
        if mine != other
    ]


def _me() -> str:
    return f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}"
