"""What two processes retrieve is what one does, to the byte."""

import pytest

from tests.end_to_end.conftest import CHECKOUT
from tests.multiprocess.running import Processes

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow, pytest.mark.timeout(900)]


def test_two_processes_retrieve_what_one_does(corpus, tmp_path):
    recipe = CHECKOUT / "tests" / "multiprocess" / "retrieving.py"
    for count in (1, 2):
        workdir = tmp_path / str(count)
        command = ["retrieve", f"--config={recipe}", f"--config.workdir={workdir}",
                   f"--config.data.corpora[0].path={corpus}"]  # fmt: skip
        with Processes(count, 2 // count, workdir, "mmpretrain", *command) as processes:
            assert processes.wait() == [0] * count, processes.output(0)
        assert "held-out clips: " in processes.output(0)
    one, two = ((tmp_path / n / "retrieval/score/fold1/manifest.csv").read_bytes() for n in "12")
    assert one == two
    assert one.count(b"\n") > 3
