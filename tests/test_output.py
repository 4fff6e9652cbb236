"""The end of the programs when what reads them has gone, and errors in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmpretrain.output import UNREAD_CODE, first_line, is_unread, one_line

ROOT = Path(__file__).parents[1]
STOPPED = "import sys; from mmpretrain import output\nwith output.until_unread(): print('saved'); sys.exit(75)"
# What is written as it goes or at the end alone, by both programs; and what ends with a code of its own.
PROGRAMS = (
    (("-m", "mmpretrain", "recipes"), UNREAD_CODE),
    (("-m", "data_prep", "ravdess", "--source", "docs", "--check"), UNREAD_CODE),
    (("-c", STOPPED), 75),
)


def _unread() -> int:
    """What is written to the pipe raises, as behind `| head` that has seen enough."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_a_program_that_nobody_reads_ends_without_a_word():
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    def start(*arguments, **streams):
        return subprocess.Popen([sys.executable, *arguments], text=True, cwd=ROOT, env=environment, **streams)

    started = [start(*arguments, stdout=_unread(), stderr=subprocess.PIPE) for arguments, _ in PROGRAMS]
    errors_unread = start("-m", "mmpretrain", "status", "no_such_run", stdout=subprocess.PIPE, stderr=_unread())
    for (arguments, code), process in zip(PROGRAMS, started, strict=True):
        said = process.communicate()[1]
        assert (process.returncode, said) == (code, ""), arguments
    assert errors_unread.communicate()[0] == ""
    assert errors_unread.returncode == UNREAD_CODE


def test_other_pipes_that_break_are_errors_as_ever():
    with pytest.raises(BrokenPipeError) as broken:
        os.write(_unread(), b"to a worker that died")
    assert not is_unread(broken.value)


def test_errors_in_one_line():
    error = ValueError("cannot read\n  the file:  at 3\n")
    assert one_line(error) == "cannot read the file: at 3"
    assert one_line(error, 6) == "cannot"
    assert first_line(error) == "cannot read"
    assert one_line(OSError()) == first_line(OSError()) == "OSError"
