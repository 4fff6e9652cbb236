"""Which process of how many this is: from the command line, the environment, or a launcher that JAX knows."""

import signal

import pytest

from mmpretrain.parallel import stopping
from mmpretrain.parallel.processes import ENVIRONMENT, Place, find_place, on_main

SET = dict(zip(ENVIRONMENT, ("host:1234", "4", "2"), strict=True))


@pytest.mark.parametrize(
    ("given", "environ", "place"),
    [
        ((None, None, None), {}, None),
        (("host:1", 2, 1), {}, Place("host:1", 2, 1)),
        ((None, None, None), SET, Place("host:1234", 4, 2)),
        ((None, None, 0), SET, Place("host:1234", 4, 0)),  # the command line counts
        (("host:1", 1, 0), {}, None),  # one process needs nobody
        (("auto", None, None), {}, Place("auto")),
        ((None, None, None), {"SLURM_STEP_NUM_TASKS": "2"}, Place("auto")),
        ((None, None, None), {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, None),  # a batch script without srun
        ((None, None, None), {"OMPI_COMM_WORLD_SIZE": "3"}, Place("auto")),
        ((None, None, None), {"KUBERNETES_SERVICE_HOST": "h", "JOB_COMPLETION_INDEX": "0"}, Place("auto")),
        ((None, None, None), {"KUBERNETES_SERVICE_HOST": "h"}, None),
        ((None, None, None), {"TPU_WORKER_HOSTNAMES": "a,b"}, Place("auto")),
        ((None, None, None), {"TPU_WORKER_HOSTNAMES": "a"}, None),
        ((None, None, None), SET | {"SLURM_STEP_NUM_TASKS": "2"}, Place("host:1234", 4, 2)),
    ],
)
def test_the_place_of_a_process(given, environ, place):
    assert find_place(*given, environ) == place


@pytest.mark.parametrize(
    ("given", "environ", "words"),
    [
        (("host:1", None, None), {}, "needs --num_processes=N or MMPRETRAIN_NUM_PROCESSES, --process_id=I or MMPRE"),
        ((None, None, None), {"MMPRETRAIN_PROCESS_ID": "0"}, "MMPRETRAIN_PROCESS_ID is set, but a run of several"),
        (("host", 2, 0), {}, "MMPRETRAIN_COORDINATOR='host'; it must be HOST:PORT"),
        (("host:1", 2, 2), {}, "MMPRETRAIN_PROCESS_ID='2' of MMPRETRAIN_NUM_PROCESSES='2'; processes are numbered"),
        (("host:1", 2, None), {"MMPRETRAIN_PROCESS_ID": "one"}, "'one' of"),
    ],
)
def test_half_an_answer_is_refused(given, environ, words):
    with pytest.raises(ValueError, match="MMPRETRAIN") as refused:
        find_place(*given, environ)
    assert words in str(refused.value)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_is_heard_at_the_next_boundary_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with stopping.listening():
        stopping.check_stop()
        signal.raise_signal(number)
        with pytest.raises(stopping.Stopped):
            stopping.check_stop()
    assert signal.getsignal(number) == before
    stopping.check_stop()


def test_one_process_does_what_process_0_does():
    assert on_main(lambda: {"a": 1}) == {"a": 1}
