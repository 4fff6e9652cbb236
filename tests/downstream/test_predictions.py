"""What a head put out comes back from its table as it was."""

import numpy as np
import pytest

from mmpretrain.config import TaskConfig
from mmpretrain.downstream.predictions import read_told, write_told
from mmpretrain.evaluation.told import Told
from mmpretrain.files import DamagedError

NAN = np.nan
CASES = {
    "value": (TaskConfig("a", kind="value"), np.array([0.5, -0.25], np.float32), np.array([[0.1], [0.2]])),
    "values": (
        TaskConfig("a", kind="values"), np.array([[NAN, 0.5, 0.75, NAN], [0.1, NAN, NAN, NAN]], np.float32),
        np.arange(8.0).reshape(2, 4, 1),
    ),
    "ordinal": (TaskConfig("a", kind="ordinal", classes=("0", "1", "2")), np.array([2, 0]), np.eye(2)),
    "votes": (TaskConfig("a", kind="votes", classes=("x", "y")), np.array([[0.25, 0.75], [1, 0]]), np.ones((2, 2))),
    "classes": (TaskConfig("a", kind="classes", classes=("x", "y")), np.array([[0, 1], [1, 1]]), np.ones((2, 2))),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_a_table_holds_what_was_told(tmp_path, kind):
    task, labels, outputs = CASES[kind]
    told = Told(task, ("one, two", "three"), ("ann", ""), labels, outputs)
    write_told(tmp_path / "said.csv", told)
    read = read_told(tmp_path / "said.csv", task, "evaluate")
    assert (read.clip_ids, read.speakers, read.truths) == (told.clip_ids, told.speakers, told.truths)
    assert read.labels.dtype.kind == labels.dtype.kind
    assert read.metrics == pytest.approx(told.metrics, rel=1e-5)
    text = (tmp_path / "said.csv").read_text()
    (tmp_path / "said.csv").write_text(text.replace("three", "four"))
    with pytest.raises(DamagedError, match=r"said\.csv is damaged.*run `mmpretrain evaluate` again"):
        read_told(tmp_path / "said.csv", task, "evaluate")
