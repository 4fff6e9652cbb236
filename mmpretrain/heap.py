"""What the C library does with memory that is free again, on Linux with glibc.

XLA's CPU client allocates the temporaries of a step anew in every step, gigabytes for a large network. By default glibc
gives them back to the system each time, which zeroes every page when it is touched again: a tenth to a third of the
time of a step (docs/performance.md, "Temporaries").
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed(environ: Mapping[str, str] = os.environ) -> bool:
    """From now on freed memory stays with this process, to be used again. Returns whether it does.

    For the beginning of a program, before it has threads: these have heaps of their own otherwise, which cannot hold
    what is large. False, and nothing is done, where the C library is another than glibc, and where the environment
    tunes its malloc already (MALLOC_ARENA_MAX and the like, or glibc.malloc in GLIBC_TUNABLES).
    """
    is_tuned = "glibc.malloc." in environ.get("GLIBC_TUNABLES", "") or any(n.startswith("MALLOC_") for n in environ)
    if is_tuned or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One heap for all threads, of which no array lies outside, and whose end is never given back.
    return all(
        mallopt(option, value) for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    )


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc ")
    except (AttributeError, ValueError):  # no such function on Windows, no such name elsewhere
        return False
