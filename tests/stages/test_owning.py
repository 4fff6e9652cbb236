"""Two commands in one run's folder: the second is refused, unless it only looks; whoever ends lets go."""

import json

import pytest

from mmpretrain import lease
from mmpretrain.__main__ import main
from mmpretrain.lease import Lease, newest_owner
from tests.end_to_end.conftest import CHECKOUT


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SEC", 0.1)


def give(command: str, workdir, capsys) -> str:
    """What a command that is a user's mistake says."""
    recipe = CHECKOUT / "tests" / "multiprocess" / "sound.py"
    fields = {"workdir": workdir, "data.corpora[0].path": workdir.parent / "none", "data.batch_multiple": 8}
    with pytest.raises(SystemExit) as left:
        main([*command.split(), f"--config={recipe}", *(f"--config.{name}={value}" for name, value in fields.items())])
    assert left.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "refine", "targets --round=1", "pretrain --round=1", "finetune", "evaluate",
                                     "export"])  # fmt: skip
def test_a_command_that_writes_is_refused_while_another_does(tmp_path, capsys, command):
    workdir = tmp_path / "run"
    with Lease(workdir, "--config.workdir", on_lost=print, say=print) as other:
        said = give(command, workdir, capsys)
        assert f"--config.workdir={workdir} is in use by `" in said
        assert f"process {other.own.pid}, since {other.own.since}" in said
        assert sorted(path.name for path in workdir.iterdir()) == [".lease"]


def test_a_command_that_ends_lets_go_however_it_ends_and_looking_takes_nothing(tmp_path, capsys):
    workdir = tmp_path / "run"
    for number in (1, 2):
        assert "does not exist; make it with" in give("targets --round=1", workdir, capsys)
        owner = newest_owner(workdir)
        assert owner.number == number
        assert owner.is_gone
    assert json.loads((workdir / "config.json").read_text())["workdir"] == str(workdir)
    main(["status", str(workdir)])
    assert "does not exist; make it with" in give("report", workdir, capsys)
    assert newest_owner(workdir) == owner
