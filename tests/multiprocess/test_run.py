"""Runs of several real processes (Gloo): the same numbers as one process, and one end for all."""

import signal
import time

import numpy as np
import pytest

from mmpretrain.targets.store import open_store
from tests.end_to_end.conftest import results
from tests.multiprocess.running import Processes, RunOfSound

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def single(corpus, tmp_path_factory):
    """Folder of a run of one process: single(devices)."""
    done = {}

    def run(devices):
        if devices not in done:
            folder = tmp_path_factory.mktemp("single") / f"devices{devices}"
            with RunOfSound(1, devices, corpus, folder) as processes:
                assert processes.wait() == [0], processes.output(0)
            done[devices] = folder
        return done[devices]

    return run


def assert_same_run(folder, expected) -> None:
    """The same clips and targets, and losses that differ by float32 rounding of sums over devices."""
    for number in (1, 2):
        ours, theirs = (
            open_store(run / f"round{number}" / "targets" / "codebook1" / "store") for run in (folder, expected)
        )
        assert ours.clip_ids == theirs.clip_ids
        assert (ours.ids == theirs.ids).mean() > (0.999 if number == 1 else 0.95)
    (summary, records), (expected_summary, expected_records) = results(folder), results(expected)
    assert [(r["stage"], r["step"]) for r in records] == [(r["stage"], r["step"]) for r in expected_records]
    compared = 0
    for record, other in zip(records, expected_records, strict=True):
        if record["stage"] == "round1/pretrain":
            assert record.keys() == other.keys()
            for name, value in record.items():
                if name.endswith(("loss", "norm")):
                    np.testing.assert_allclose(value, other[name], rtol=1e-3, err_msg=f"{record['step']} {name}")
                    compared += 1
    assert compared > 10
    assert summary.keys() == expected_summary.keys()
    assert summary["export_max_error"] < 1e-4


def test_two_processes_stopped_and_killed_equal_one(corpus, single, tmp_path):
    folder = tmp_path / "two"

    def start() -> RunOfSound:
        return RunOfSound(2, 1, corpus, folder)

    # The signal reaches one process only, in training, in labelling and in the evaluation of the classifiers.
    for stage, one, number in (
        ("round1/pretrain/checkpoints", 1, signal.SIGTERM),
        ("round2/targets/codebook1/fitted/codebook.npz", 0, signal.SIGUSR1),
        ("evaluation/recipe.json", 1, signal.SIGTERM),
    ):
        with start() as run:
            run.wait_for(folder / stage)
            run.started[one].send_signal(number)
            assert run.wait() == [75, 75], run.output(0) + run.output(1)
            assert "stopped and saved; the same command continues" in run.output(0)
        assert "Traceback" not in run.output(0) + run.output(1)
    with start() as run:
        assert run.wait() == [0, 0], run.output(0) + run.output(1)
    assert_same_run(folder, single(2))


def test_a_lost_process_ends_the_others_and_is_named(corpus, tmp_path):
    folder = tmp_path / "lost"
    with RunOfSound(2, 1, corpus, folder) as run:
        run.wait_for(folder / "round1" / "pretrain" / "recipe.json")
        run.started[1].kill()
        begin = time.monotonic()
        assert run.wait()[0] == 1, run.output(0)
        assert time.monotonic() - begin < 60, "parallel.lost_after_sec is 8"
        assert "process 1 of 2 is lost: not heard of for 8 s" in run.output(0).splitlines()[-1]


def test_a_lost_process_0_ends_the_others(corpus, tmp_path):
    folder = tmp_path / "lost"
    with RunOfSound(2, 1, corpus, folder) as run:
        run.wait_for(folder / "round1" / "pretrain" / "recipe.json")
        run.started[0].kill()
        begin = time.monotonic()
        assert run.wait()[1] not in (0, 75)
        assert time.monotonic() - begin < 60
        assert "process 0 of 2 is lost" in run.output(1) or "leader" in run.output(1)


def test_an_error_of_one_process_ends_all_with_its_message(corpus, tmp_path):
    folder = tmp_path / "error"
    with RunOfSound(2, 1, corpus, folder, "--config.data.batch_multiple=1") as run:
        assert run.wait() == [2, 2]
        for index in range(2):
            assert "of 2 failed: data.batch_multiple=1 does not divide over the 2 parts" in run.output(index)
            assert "Traceback" not in run.output(index)


def test_four_processes_equal_one(corpus, single, tmp_path):
    with RunOfSound(4, 1, corpus, tmp_path / "four") as run:
        assert run.wait() == [0] * 4, run.output(0)
    assert_same_run(tmp_path / "four", single(4))


def test_programs_that_only_join_end_together_in_silence(tmp_path):
    """A thread that is in JAX's client while Python ends aborts it, or takes the end of another for its loss."""
    for count in range(3):
        with Processes(2, 1, tmp_path / str(count), "tests.multiprocess.leaving") as processes:
            assert processes.wait() == [0, 0], [processes.output(index) for index in range(2)]
            assert [len(processes.output(index).splitlines()) for index in range(2)] == [1, 1]
