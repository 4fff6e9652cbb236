"""One of two processes of a run that does nothing but own its folder; each is told which folder that is.

`python -m tests.multiprocess.folders FOLDER_OF_0 FOLDER_OF_1 CORPUS_OF_0 CORPUS_OF_1 [stay]`
"""

import os
import sys
import time
from pathlib import Path

import jax

from mmpretrain import lease
from mmpretrain.parallel import processes
from mmpretrain.run import owning

lease.BEAT_SEC, owning.SEEN_SEC = 0.2, 2.0

if __name__ == "__main__":
    processes.initialize(processes.find_place(None, None, None, os.environ), lost_after_sec=8)
    index = jax.process_index()
    folder, corpus = Path(sys.argv[1 + index]), sys.argv[3 + index]
    with processes.together(lambda error: (2, str(error))), owning.owned(folder, [corpus]):
        print("owned", flush=True)
        if "stay" in sys.argv:
            time.sleep(60)
