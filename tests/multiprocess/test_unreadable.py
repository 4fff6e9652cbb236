"""Clips that cannot be read count for the run, not for the process that meets them."""

import pytest

from tests.corpus_fixture import damage_record, make_clip, write_corpus
from tests.multiprocess.running import Processes

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Of ten clips one of the first half cannot be read, and one of the second."""
    clips = [make_clip(f"c{i}", 12, size=16, labels={"emotion": "sad"}) for i in range(10)]
    path = write_corpus(tmp_path_factory.mktemp("corpora") / "hurt", clips, 16, 32)
    damage_record(path, at=0.2)
    damage_record(path, at=0.5)
    return str(path)


def test_they_are_counted_once_over_all_processes_which_end_together_where_they_are_too_many(corpus, tmp_path):
    with Processes(2, 1, tmp_path / "out", "tests.multiprocess.unreadable", corpus, "0.2", "0.15") as run:
        assert run.wait(90) == [2, 2], run.output(0) + run.output(1)
        lines = [run.output(index).splitlines() for index in range(2)]
    within = [line for of_one in lines for line in of_one if "known:" in line]
    assert within[0] == within[1]
    assert len(within[0].split()) == 3
    said = [line.partition(": clip")[0] for of_one in lines for line in of_one if line.startswith("said:")]
    assert said.count("said: passed over, 1 of 10 clips so far") == 2  # one of each share
    assert said.count("said: passed over, 2 of 10 clips so far") == 1
    for of_one in lines:  # each process alone would be within the second share
        (ending,) = [line for line in of_one if "failed: " in line]
        assert "failed: 2 of 10 clips cannot be read, more than data.max_unreadable_share=0.15 allows: 'c" in ending
        assert "Traceback" not in " ".join(of_one)
