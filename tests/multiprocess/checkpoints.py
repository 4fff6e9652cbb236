"""Saves a checkpoint in two processes and restores it, with something wrong in one of them.

python -m tests.multiprocess.checkpoints --folder=... --wrong=WHAT; WHAT is one of those in `_run`, or "nothing".
Prints the step that was restored.
"""

import argparse
import errno
import os
import resource
import sys
from pathlib import Path

from mmpretrain import __main__ as command
from mmpretrain import files
from mmpretrain.parallel import processes

UNSEEN = 10**9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--wrong", required=True)
    given = parser.parse_args()
    processes.initialize(processes.find_place(None, None, None, os.environ), lost_after_sec=30)
    try:
        with processes.together(command._end):
            _run(given.folder, given.wrong)
    except Exception as error:
        code, line = command._end(error)
        print(line, file=sys.stderr)
        sys.exit(code)


def _run(folder: Path, wrong: str) -> None:
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from mmpretrain.parallel.processes import on_main
    from mmpretrain.train import checkpoint, sealed_items
    from mmpretrain.train.checkpoint import Checkpointer, read

    checkpoint.AGAIN_AFTER_SEC = (0, 0.1)
    here = jax.process_index() == 1
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("fsdp",)), PartitionSpec("fsdp"))
    numbers = np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)

    def state(step: int) -> dict:
        return {"w": jax.make_array_from_callback(numbers.shape, sharding, lambda at: step * numbers[at])}

    saved = Checkpointer(folder, keep=3)
    saved.save(10, state(10), {"step": 10})
    saved.wait()
    if wrong == "save" and here:  # as on a full disk of one machine
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    if wrong == "commit" and not here:
        _fail(sealed_items, "seal")
    saved.save(20, state(20), {"step": 20})
    saved.wait()
    if wrong == "bit" and here:
        file = max((folder / "20" / "state" / "ocdbt.process_1" / "d").iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    processes.barrier()
    again = Checkpointer(folder, keep=3)
    if wrong in ("digest", "once") and here:
        _fail(files, "file_digest", times=1 if wrong == "once" else UNSEEN)
    if wrong == "arrays" and here:
        _fail(checkpoint.ocp.StandardCheckpointHandler, "restore")
    if wrong == "names" and here:
        again._manager.all_steps = lambda: [10]  # a shared folder as an NFS client remembers it
    if wrong == "export":
        on_main(lambda: files.write_json(folder / "10" / "state" / "_METADATA" / "result.json", {}))
    restored, extra = again.restore(state(0))
    step = extra["step"]
    for shard in restored["w"].addressable_shards:
        np.testing.assert_array_equal(shard.data, step * numbers[shard.index])
    if wrong == "read" and here:
        _fail(files, "file_digest")
    read(folder, step, state(0))
    if wrong == "again":
        again.save(20, state(3), {"step": 20})
    again.close()
    print(f"restored step {step}")


def _fail(owner: object, name: str, times: int = UNSEEN) -> None:
    real, left = getattr(owner, name), [times]

    def fails(*args: object, **kwargs: object) -> object:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "a file of this machine")
        return real(*args, **kwargs)

    setattr(owner, name, fails)


if __name__ == "__main__":
    main()
