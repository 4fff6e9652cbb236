"""One of two processes of a run that only loads: each half of a corpus, then both all of it;
once for each share that may be damaged.

`python -m tests.multiprocess.unreadable CORPUS SHARE ...`
"""

import os
import sys

import jax

from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.data.unreadable import Unreadable, UnreadableClipError
from mmpretrain.parallel import processes


def load(table, rows) -> None:
    for row in rows:
        try:
            table.load(row)
        except UnreadableClipError as error:
            table.unreadable.add(error)


if __name__ == "__main__":
    processes.initialize(processes.find_place(None, None, None, os.environ), lost_after_sec=8)
    with processes.together(lambda error: (2, str(error))):
        for share in map(float, sys.argv[2:]):
            unreadable = Unreadable(share, lambda line: print("said:", line, flush=True), processes.Board())
            table = open_clips([CorpusConfig(sys.argv[1])], unreadable=unreadable)
            half = len(table) // 2
            load(table, range(half) if jax.process_index() == 0 else range(half, len(table)))
            processes.barrier()
            load(table, range(len(table)))
            processes.barrier()
            print("known:", *unreadable.clip_ids, flush=True)
