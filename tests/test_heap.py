"""Freed memory stays with a process, so that arrays which come and go in every step are not faulted in again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmpretrain import heap

ROOT = Path(__file__).parents[1]
PROGRAM = """
import resource, threading
from mmpretrain import heap

print(heap.keep_freed())

def fill(repetitions):
    for _ in range(repetitions):
        b"1" * (100 << 20)

def faults_of_thread():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=fill, args=(10,))
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fill(1)
print(faults_of_thread())
"""
ONCE = (100 << 20) // os.sysconf("SC_PAGE_SIZE")
on_glibc = pytest.mark.skipif(not heap._is_glibc(), reason="another C library")


def run(**environ: str) -> tuple[str, int]:
    """Whether memory is kept, and page faults of a thread that fills 100 MB ten times after they were filled once."""
    untuned = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env={**untuned, "PYTHONPATH": str(ROOT), **environ},
                          capture_output=True, text=True, check=True)  # fmt: skip
    kept, faults = done.stdout.split()
    return kept, int(faults)


@on_glibc
def test_a_large_array_made_again_and_again_is_faulted_in_once():
    kept, faults = run()
    assert kept == "True"
    assert faults < ONCE / 10


@on_glibc
@pytest.mark.parametrize("tuned", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_who_tunes_malloc_is_left_alone(tuned):
    kept, faults = run(**tuned)
    assert kept == "False"
    assert faults > 5 * ONCE


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(os, "confstr", lambda name: None)
    assert not heap.keep_freed({})
