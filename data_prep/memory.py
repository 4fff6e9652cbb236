"""How much memory there is, and how much of it one worker process may take."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
from pathlib import Path

_SHARE = 0.75  # of the memory there is, for all workers together; the rest is for the one that writes and the system
_LEAST_BYTES = 2**30  # landmarks of a 1080p clip take 0.5 GB, of an 8K one 0.7
_CGROUPS = Path("/sys/fs/cgroup")


def share_bytes(num_workers: int) -> int:
    """Of data that each of so many workers may have."""
    return max(int(_SHARE * free_bytes() / num_workers), _LEAST_BYTES)


def that_fit(num_workers: int) -> int:
    """So many of the workers as there is memory for."""
    return max(1, min(num_workers, int(_SHARE * free_bytes() / _LEAST_BYTES)))


def free_bytes() -> int:
    """What no other program uses of the machine's memory, or what the container or job that this runs in may have."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError):
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        limits.append(1024 * int(told["MemAvailable"].split()[0]))
    files = [_CGROUPS / "memory" / "memory.limit_in_bytes"]  # of version 1
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            own = _CGROUPS / line.rpartition(":")[2].lstrip("/")
            files += [folder / "memory.max" for folder in (own, *own.parents)]
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(file.read_text()))
    return min(limits)


def asked_for_half(share_bytes: int) -> bool:
    """Whether what was just refused to this process was more than half of its share in one piece.

    It never held the other half, and could have half of it now.
    """
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        if 1024 * int(told["VmHWM"].split()[0]) > share_bytes // 2:  # `getrusage` counts the parent's too
            return False
        mmap.mmap(-1, share_bytes // 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, ValueError, KeyError):
        return False
    return True


def bound(num_bytes: int) -> None:
    """Lets this process have no more data than that: beyond it memory is refused, as if the machine had no more.

    Data, not address space: MediaPipe maps far more than it uses. Where the system knows no such bound there is none.
    """
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        bounded = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (bounded, hard))
