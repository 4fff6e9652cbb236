"""`mmpretrain` whose process 1 does not see what others have put into the folders of a codebook, as on a shared folder
that shows it late; with many small parts, and asked to stop in process 1 after a number of them.

python -m tests.multiprocess.blind STOP_AFTER COMMAND... (0: it is not asked)
"""

import os
import signal
import sys
from pathlib import Path

from mmpretrain.__main__ import main
from mmpretrain.targets import labelling, progress
from mmpretrain.targets.progress import LabelProgress


def missing(path: Path) -> bytes:
    raise FileNotFoundError(path)


SEEN = {
    "exists": lambda path: False, "is_file": lambda path: False, "glob": lambda path, pattern: iter(()),
    "rglob": lambda path, pattern: iter(()), "iterdir": lambda path: iter(()), "read_bytes": missing,
}  # fmt: skip


def blind(name: str) -> None:
    look = getattr(Path, name)

    def looked(self, *args, **kwargs):
        late = {"fitted", "labelling"} & {*self.parts}
        return SEEN[name](self, *args) if late else look(self, *args, **kwargs)

    setattr(Path, name, looked)


def stop_after(count: int) -> None:
    add, added = LabelProgress.add, []

    def add_and_ask(self, labelled):
        add(self, labelled)
        added.append(labelled)
        if len(added) == count:
            os.kill(os.getpid(), signal.SIGTERM)

    LabelProgress.add = add_and_ask


if __name__ == "__main__":
    labelling.LABEL_CLIPS, progress.PART_FRAMES = 2, 1
    if os.environ["MMPRETRAIN_PROCESS_ID"] == "1":
        for name in SEEN:
            blind(name)
        stop_after(int(sys.argv[1]))
    main(sys.argv[2:])
