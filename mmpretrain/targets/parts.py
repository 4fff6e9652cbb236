"""What comes clip by clip, kept in parts on disk, so that a pass over many clips goes on where it was stopped.

A part is a file of what came of many clips. Its name holds the digest of its content and of all that it depends on: a
part that was cut, changed or moved here from elsewhere is known by that, thrown away, and made again.
"""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path

import numpy as np

from mmpretrain.files import DamagedError, whole_file
from mmpretrain.observe.progress import log

PART_SEC = 60.0  # after so long a part is written: what a kill can cost


class Parts:
    """What has come of `num_clips` clips, kept in `folder`.

    `fingerprint` names all that it depends on. Every process adds its own. What is there only process 0 finds out, for
    all: another process may see a shared folder later than it. kind: of what is kept, at most 16 letters.
    """

    def __init__(self, folder: str | Path, fingerprint: str, *, num_clips: int, kind: str):
        self.folder = Path(folder) / fingerprint
        self.num_clips, self._kind = num_clips, kind
        self._since_sec: float | None = None
        self.done = np.zeros(num_clips, bool)  # which clips `find` found
        self.written: list[str] = []  # names of parts, by this process

    def find(self) -> list[str]:
        """The names of the parts that are whole; the others are removed with a line in the log."""
        found = []
        for part in sorted(self.folder.glob("part-*.npz")):
            try:
                self.done[self.read(part.name)["rows"]] = True
            except DamagedError as error:
                log(f"{error}; its clips are made again")
                part.unlink()
            else:
                found.append(part.name)
        return found

    def due(self) -> bool:
        """To be asked when something has come: whether the first of what waits has waited long enough."""
        if self._since_sec is None:
            self._since_sec = time.monotonic()
        return time.monotonic() - self._since_sec >= PART_SEC

    def write(self, **arrays: np.ndarray) -> None:
        """A part that is there wholly or not at all. rows: int64, the clips that it is of."""
        content = io.BytesIO()
        np.savez(content, **arrays)
        name = self._name(content.getbuffer())
        with whole_file(self.folder / name) as draft:
            draft.write_bytes(content.getbuffer())
        self.written.append(name)
        self._since_sec = None

    def read(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a part. Raises DamagedError for one that is missing or not as it was written."""
        file = self.folder / name
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            raise DamagedError(f"{file} is missing") from None
        if self._name(content) != name:
            raise DamagedError(f"{file} is damaged: it is not what was written (by the digest in its name)")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _name(self, content: bytes | memoryview) -> str:
        digest = hashlib.blake2b(content, digest_size=16, person=self._kind.encode())
        digest.update(self.folder.name.encode())
        return f"part-{digest.hexdigest()}.npz"
