"""Targets made by two real processes: asked to stop they stop, and process 0 alone looks at what is there."""

import signal
import time

import pytest

from tests.corpus_fixture import make_clip, write_corpus
from tests.end_to_end.conftest import CHECKOUT
from tests.multiprocess.running import Processes, RunOfSound

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("number", "one"), [(signal.SIGTERM, 1), (signal.SIGUSR1, 0)])
def test_a_run_stops_while_k_means_is_fitted(corpus, tmp_path, number, one):
    long = ("--round=1", "--config.rounds[0].targets[0].fit_restarts=10000")
    with RunOfSound(2, 1, corpus, tmp_path / "run", *long, stage="targets") as run:
        deadline = time.monotonic() + 400
        while "fitting 12 clusters on" not in run.output(0):
            assert time.monotonic() < deadline, run.output(0)
            assert run.started[0].poll() is None, run.output(0)
            time.sleep(0.05)
        time.sleep(5)  # it has compiled
        run.started[one].send_signal(number)
        assert run.wait(60) == [75, 75], run.output(0) + run.output(1)
    assert "stopped and saved; the same command continues" in run.output(0)
    assert not (tmp_path / "run" / "round1" / "targets" / "codebook1" / "store").exists()


def test_process_0_tells_what_is_labelled_and_what_is_stopped_ends_with_the_same_bits(corpus, tmp_path):
    recipe = CHECKOUT / "tests" / "multiprocess" / "sound.py"

    def make(name: str, stop_after: int = 0) -> tuple[list[int], str]:
        command = ["targets", "--round=1", f"--config={recipe}", f"--config.workdir={tmp_path / name}",
                   f"--config.data.corpora[0].path={corpus}"]  # fmt: skip
        with Processes(2, 1, tmp_path / name, "tests.multiprocess.blind", str(stop_after), *command) as processes:
            return processes.wait(), processes.output(0) + processes.output(1)

    def files_of(name: str) -> dict[str, bytes]:
        store = tmp_path / name / "round1" / "targets" / "codebook1" / "store"
        return {file.name: file.read_bytes() for file in store.iterdir()}

    assert (straight := make("straight"))[0] == [0, 0], straight[1]
    assert (stopped := make("stopped", stop_after=2))[0] == [75, 75], stopped[1]
    folder = tmp_path / "stopped" / "round1" / "targets" / "codebook1"
    parts = sorted(folder.glob("labelling/*/part-*"))
    assert len(parts) > 3
    assert not (folder / "store").exists()
    parts[0].write_bytes(parts[0].read_bytes()[:-1])
    assert (again := make("stopped"))[0] == [0, 0], again[1]
    assert f"{parts[0].name} is damaged" in again[1]
    assert files_of("stopped") == files_of("straight")


def test_centres_of_speakers_are_the_same_to_the_bit_on_one_process_and_on_two(tmp_path):
    clips = [make_clip(f"c{i}", 30 + i, size=16, speaker="ab"[i % 2]) for i in range(11)]
    corpus = write_corpus(tmp_path / "c", clips, 16, 32)
    targets = "--config.rounds[0].targets[0]."
    relative = ("--round=1", f"{targets}features=prosody", f"{targets}relative_to=speaker", f"{targets}num_clusters=4")
    centres = []
    for count in (1, 2):
        workdir = tmp_path / f"run{count}"
        with RunOfSound(count, 2 // count, corpus, workdir, *relative, stage="targets") as run:
            assert run.wait() == [0] * count, run.output(0)
        folder = workdir / "round1" / "targets" / "codebook1"
        assert (folder / "store").exists()
        centres.append([(folder / "centres" / name).read_bytes() for name in ("centres.npz", "lineage.json")])
    assert centres[0] == centres[1]
