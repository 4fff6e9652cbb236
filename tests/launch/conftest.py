import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """stub(name, python): a program of that name, first on PATH, that runs `python`.

    Programs see no GPU and none of this process's MMPRETRAIN_ variables.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"MMPRETRAIN_{name}", raising=False)

    def write(name: str, code: str) -> None:
        (folder / name).write_text(f"#!{sys.executable} -IS\n{code}")
        (folder / name).chmod(0o755)

    return write
