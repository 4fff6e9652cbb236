"""Objects between processes of one program: large arrays lie in memory that they share, the rest is pickled.

That memory has no name: it goes when nobody holds it, also where everybody was killed. It is not in /dev/shm, which may
be small. Nothing here reads what others wrote.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import pickle
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import connection, reduction
from typing import Any

import numpy as np

_LARGE_BYTES = 1 << 20  # of an array; smaller ones are copied, since processes can have but few files open


class _Pickler(pickle.Pickler):
    """Puts large arrays aside, and opens the file of a mapped one again in place of copying what is in it."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=5, buffer_callback=self._stays)
        self.aside: list[memoryview] = []

    def _stays(self, buffer: pickle.PickleBuffer) -> bool:
        small = buffer.raw().nbytes < _LARGE_BYTES
        self.aside += [] if small else [buffer.raw()]
        return small

    def reducer_override(self, content: Any) -> Any:
        if isinstance(content, np.memmap) and isinstance(content.base, mmap.mmap) and content.flags.c_contiguous:
            return np.memmap, (content.filename, content.dtype, "r", content.offset, content.shape)
        return NotImplemented


def _pickled(content: Any) -> tuple[bytes, list[memoryview], list[slice]]:
    """The content without its large arrays, these, and where in memory to put them: at beginnings of pages."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(content)
    places, start = [], 0
    for array in pickler.aside:
        places.append(slice(start, start + array.nbytes))
        start = _of_pages(places[-1].stop)
    return file.getvalue(), pickler.aside, places


def _of_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _memory(size: int) -> int:
    """A new file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("loaded")
    else:
        with tempfile.TemporaryFile() as there:
            file = os.dup(there.fileno())
    os.truncate(file, size)
    return file


@contextlib.contextmanager
def shared(content: Any) -> Iterator[int]:
    """A file for `read_shared` in processes that get it while the context lasts."""
    pickled, arrays, places = _pickled(content)
    head = pickle.dumps((pickled, places))
    start = _of_pages(8 + len(head))
    file = _memory(start + (places[-1].stop if places else 0))
    try:
        with open(file, "r+b", closefd=False) as memory:
            memory.write(len(head).to_bytes(8, "little") + head)
            for array, place in zip(arrays, places, strict=True):
                memory.seek(start + place.start)
                memory.write(array)
        yield file
    finally:
        os.close(file)


def read_shared(file: int) -> Any:
    """Its content, whose large arrays are read-only. Closes the file."""
    view = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_READ))
    os.close(file)
    length = int.from_bytes(view[:8], "little")
    pickled, places = pickle.loads(view[8:][:length])
    arrays = view[_of_pages(8 + length) :]
    return pickle.loads(pickled, buffers=[arrays[place] for place in places])


class Sender:
    """Sends objects to a `Receiver`, whose large arrays it copies into memory that it owns.

    Such memory is used again when the receiver has let go of all that was in it: what is asked of the system anew costs
    a quarter of the time of loading a batch.
    """

    def __init__(self, pipe: connection.Connection):
        self._pipe = pipe
        self._memories: list[mmap.mmap] = []
        self._free: list[int] = []

    def reuse(self, numbers: Iterable[int]) -> None:
        """numbers: what `Receiver.let_go` said."""
        self._free += numbers

    def send(self, content: Any) -> None:
        pickled, arrays, places = _pickled(content)
        if not arrays:
            self._pipe.send((pickled, places, 0, 0))
            return
        size, file = places[-1].stop, None
        number = self._free.pop() if self._free else len(self._memories)
        if number == len(self._memories) or size > len(self._memories[number]):
            file = _memory(size)
            self._memories[number : number + 1] = [mmap.mmap(file, size)]
        for array, place in zip(arrays, places, strict=True):
            self._memories[number][place] = array
        self._pipe.send((pickled, places, number, 0 if file is None else size))
        if file is not None:
            reduction.send_handle(self._pipe, file, None)
            os.close(file)


class Receiver:
    """Receives what a `Sender` sends; large arrays are where it put them."""

    def __init__(self, pipe: connection.Connection):
        self._pipe = pipe
        self._memories: list[mmap.mmap] = []
        self._let_go: deque[int] = deque()  # by whichever thread has the last of the arrays

    def let_go(self) -> list[int]:
        """The numbers of the memories of which nobody here has an array any more, each once."""
        return [self._let_go.popleft() for _ in range(len(self._let_go))]

    def receive(self) -> Any:
        """Raises EOFError or ConnectionError where there is no sender any more."""
        pickled, places, number, new_size = self._pipe.recv()
        if not places:
            return pickle.loads(pickled)
        if new_size:
            file = reduction.recv_handle(self._pipe)
            self._memories[number : number + 1] = [mmap.mmap(file, new_size)]
            os.close(file)
        whole = np.frombuffer(self._memories[number], np.uint8)
        weakref.finalize(whole, self._let_go.append, number).atexit = False
        view = memoryview(whole)
        return pickle.loads(pickled, buffers=[view[place] for place in places])


def portable(error: Exception) -> Exception:
    """The error, or what it says where it does not pickle."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
