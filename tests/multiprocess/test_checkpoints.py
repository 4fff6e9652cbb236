"""Checkpoints of two real processes: what goes wrong in one of them reaches both, and ends both with a line."""

import time

import pytest

from mmpretrain.files import sealed
from tests.multiprocess.running import Processes

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow, pytest.mark.timeout(300)]


def run(tmp_path, wrong: str) -> tuple[list[int], list[str]]:
    """Exit codes and outputs."""
    command = ["tests.multiprocess.checkpoints", f"--folder={tmp_path / 'saved'}", f"--wrong={wrong}"]
    with Processes(2, 1, tmp_path / wrong, *command) as both:
        begin = time.monotonic()
        codes = both.wait(120)
        assert time.monotonic() - begin < 90, "nobody waits for one who does not come"
        return codes, [both.output(0), both.output(1)]


def steps(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "saved").iterdir())


@pytest.mark.parametrize("wrong", ["nothing", "once", "names", "again"])
def test_both_restore_the_newest(tmp_path, wrong):
    codes, outputs = run(tmp_path, wrong)
    assert codes == [0, 0], outputs
    assert all("restored step 20" in output for output in outputs), outputs
    assert steps(tmp_path) == ["10", "20"]
    digests = sealed(tmp_path / "saved" / "20" / "state")
    for process in (0, 1):
        assert any(name.startswith(f"ocdbt.process_{process}/d/") for name in digests)
    assert not list((tmp_path / "saved" / "20" / "state").glob("digests.*.json"))


def test_a_bit_that_one_of_them_sees_changed_takes_both_back_a_step(tmp_path):
    codes, outputs = run(tmp_path, "bit")
    assert codes == [0, 0], outputs
    assert all("restored step 10" in output for output in outputs), outputs
    assert "20 is damaged" in outputs[0]
    assert steps(tmp_path) == ["10", "20.damaged"]


@pytest.mark.parametrize("wrong", ["digest", "arrays", "read"])
def test_one_that_cannot_read_ends_both_and_nothing_is_renamed(tmp_path, wrong):
    codes, outputs = run(tmp_path, wrong)
    assert codes == [2, 2], outputs
    for output in outputs:
        assert "20 cannot be read by process 1, not in 3 attempts over" in output, output
        assert "Stale file handle" in output
        assert "Traceback" not in output
    assert steps(tmp_path) == ["10", "20"]


@pytest.mark.parametrize("wrong", ["save", "commit", "export"])
def test_one_that_cannot_write_ends_both(tmp_path, wrong):
    codes, outputs = run(tmp_path, wrong)
    assert codes == [2, 2], outputs
    failed = "process 1 of 2 failed: " if wrong == "save" else "process 0 of 2 failed: "
    assert all(failed in output for output in outputs), outputs
    assert "20" not in steps(tmp_path) or wrong == "export"
