import io
import re

import jax
import pytest

from mmpretrain.observe import progress
from mmpretrain.observe.progress import Progress, log, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_file_gets_whole_lines_now_and_then(capsys, monkeypatch):
    now_sec = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_sec)
    with Progress("round 1", total=100, unit="step", initial=20) as bar:
        for step in range(20, 100):
            now_sec += 1.0
            bar.update(loss=step / 10)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "round 1: 50/100 steps, 1 steps/s, loss 4.9",
        "round 1: 80/100 steps, 1 steps/s, loss 7.9",
        "round 1: 100/100 steps, 1 steps/s, loss 9.9",
    ]


def test_a_terminal_gets_a_bar_and_messages_beside_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    for number in track(range(3), "prepare", unit="clip"):
        if number == 1:
            log("a message")
    shown = terminal.getvalue()
    assert "prepare: 100%" in shown
    assert "3/3" in shown
    assert re.search(r"\d\d:\d\d:\d\d a message\n", shown)


def test_track_yields_what_it_is_given(capsys):
    assert list(track((c for c in "abc"), "letters")) == ["a", "b", "c"]
    assert "letters: 3 items" in capsys.readouterr().err


def test_only_process_0_speaks(capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    log("a message")
    list(track(range(3), "prepare"))
    assert capsys.readouterr().err == ""


def test_a_failed_stage_does_not_claim_an_end(capsys):
    with pytest.raises(ZeroDivisionError):
        list(track((1 // n for n in (1, 0)), "stage"))
    assert capsys.readouterr().err == ""
