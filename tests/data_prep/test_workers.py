"""Worker processes: whatever one item does to its own, the others come out, and it is said whose fault it was."""

import errno
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep import memory
from data_prep.faults import ClipError, SetupError, of_the_clip
from data_prep.workers import CRASHED, Failed, ordered_map

pytestmark = pytest.mark.multiprocess


def do(item: tuple[str, str]) -> str:
    """What the first word says; the second is a file of its own that remembers whether it was tried before."""
    what, file = item
    first = not os.path.exists(file)
    Path(file).touch()
    if what in signal.Signals.__members__:
        os.kill(os.getpid(), signal.Signals[what])
    if what == "killed once" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(600)
    if what == "exit":
        os._exit(3)
    if what == "memory" or (what == "memory once" and first):
        assert [np.ones(2**23) for _ in range(2**20)]  # 64 MiB each
    if what == "files":
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if what == "huge":
        np.ones(2**38)  # 2 TiB, which no machine has
    if what == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if what == "setup":
        raise SetupError("the model is broken")
    if what == "mistake":
        raise KeyError("nobody thought of it")
    return what


def outcomes(folder: Path, *whats: str, patience_sec: float = 300) -> list[str | Failed]:
    items = [(what, str(folder / f"{number}")) for number, what in enumerate(whats)]
    done = list(ordered_map(do, items, 2, lambda item: 1.0 if item[0] == "hang" else patience_sec))
    assert [item for item, _ in done] == items
    return [outcome for _, outcome in done]


def test_each_item_costs_only_itself_and_the_reason_is_the_right_one(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "share_bytes", lambda _: 2**29)
    whats = [
        "a", "SIGSEGV", "b", "SIGKILL", "killed once", "c", "exit", "hang", "memory", "d", "memory once", "files",
        "SIGABRT", "huge", "SIGTERM", "e",
    ]  # fmt: skip
    found = dict(zip(whats, outcomes(tmp_path, *whats), strict=True))
    for fine in ("a", "b", "killed once", "c", "d", "memory once", "e"):
        assert found[fine] == fine
    for crash in ("SIGSEGV", "SIGABRT", "exit"):
        assert found[crash] == Failed(CRASHED)
    assert "given up" in found["hang"].reason
    assert not found["hang"].again
    for kill in ("SIGKILL", "SIGTERM"):
        assert "was killed" in found[kill].reason
    assert "not enough memory" in found["memory"].reason
    assert "more than half of the memory" in found["huge"].reason
    assert "open files" in found["files"].reason
    assert {what for what in whats if isinstance(found[what], Failed) and found[what].again} == {
        "SIGKILL", "SIGTERM", "memory", "files"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("disk", OSError, "No space left"),
        ("setup", SetupError, "model is broken"),
        ("mistake", RuntimeError, r"at \('mistake', [^$]*in do\n[^$]*nobody thought of it"),  # item, traceback, reason
    ],
)
def test_what_is_no_fault_of_an_item_ends_everything(tmp_path, what, kind, message):
    with pytest.raises(kind, match=message):
        outcomes(tmp_path, "a", what, "b")


def test_workers_share_three_quarters_of_the_memory_and_have_a_gibibyte_each(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 8 * 2**30)
    assert [memory.share_bytes(workers) for workers in (1, 2, 6, 100)] == [6 * 2**30, 3 * 2**30, 2**30, 2**30]
    assert [memory.that_fit(workers) for workers in (1, 2, 6, 100)] == [1, 2, 6, 6]
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**29)
    assert (memory.share_bytes(4), memory.that_fit(4)) == (2**30, 1)


def test_a_worker_may_have_its_share_of_the_memory_and_no_more():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        memory.bound(2**32)
        with pytest.raises(MemoryError):
            np.ones(2**30)  # 8 GiB
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (IndexError("list index"), ClipError), (OverflowError("too large"), ClipError), (KeyError("x"), ClipError),
        (ValueError("a reason"), ClipError), (RuntimeError("MediaPipe"), ClipError), (OSError(5, "io"), ClipError),
        (MemoryError(), MemoryError), (OSError(errno.EMFILE, "files"), OSError), (SetupError("model"), SetupError),
        (OSError(errno.ENOMEM, "memory"), OSError), (RuntimeError("can't start new thread"), RuntimeError),
    ],
)  # fmt: skip
def test_the_rule_of_whose_fault_it_is(error, raised):
    with pytest.raises(raised) as caught, of_the_clip():
        raise error
    if raised is ClipError:
        assert caught.value.lasting == isinstance(error, ValueError)  # remembered of the file
        assert str(error).strip("'") in str(caught.value) or error.strerror in str(caught.value)
    else:
        assert caught.value is error
