"""Writes which clips this process has a share of at which step, and what of them.

python -m tests.multiprocess.sequence --corpus=... --output=... --first_step=... --num_steps=... leaves JSON
{step: {row: [clip id, hash of its arrays]}} of the training batches from --first_step on, under --output.
"""

import argparse
import hashlib
import json
import os

from mmpretrain.config import CorpusConfig
from mmpretrain.parallel import processes
from tests.multiprocess import sound


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("corpus", str), ("output", str), ("first_step", int), ("num_steps", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args()
    processes.initialize(processes.find_place(None, None, None, os.environ), lost_after_sec=30)

    import jax
    import numpy as np

    from mmpretrain.parallel.mesh import process_rows
    from mmpretrain.run.run import Run

    config = sound.get_config()
    config.workdir, config.data.corpora, config.data.num_workers = given.output, (CorpusConfig(given.corpus),), 2
    config.model.modalities = ("audio", "video")
    run = Run(config)
    train, _ = run.clips
    batches = run.training_batches(
        "round1/pretrain", train, config.model, given.num_steps, batch_frames=config.data.batch_frames
    )
    shares = {}
    for step, batch in enumerate(batches(given.first_step), start=given.first_step + 1):
        ids = batches.clip_ids(step)
        rows = process_rows(run.mesh, len(ids))
        shares[step] = {}
        for i, row in enumerate(rows.tolist()):
            assert train.clip_ids[batch.clip_B[i]] == ids[row]
            arrays = [np.ascontiguousarray(x[i]) for x in jax.tree.leaves(batch)]
            shares[step][row] = [ids[row], hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest()]
    with open(f"{given.output}.{jax.process_index()}.json", "w") as file:
        json.dump(shares, file)


if __name__ == "__main__":
    main()
