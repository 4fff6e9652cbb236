"""The scripts under `launch/`: bash reads them, and the sbatch file asks Slurm for what a preempted run needs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.conftest import LAUNCH

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_is_clean(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert script.suffix == ".sbatch" or os.access(script, os.X_OK)
    result = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_slurm_is_asked_to_warn_to_requeue_and_to_append():
    asked = re.findall(r"^#SBATCH (--\S+)$", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"--requeue", "--open-mode=append", "--signal=USR1@120"} <= set(asked)
    assert len(asked) == (LAUNCH / "slurm.sbatch").read_text().count("#SBATCH"), "a comment ends Slurm's reading of one"


@pytest.mark.parametrize("code", [0, 1, 75])
def test_only_75_goes_back_into_the_queue(stub, tmp_path, monkeypatch, code):
    # `srun` as one task of two; `launch/test_slurm.sh` has the real one.
    stub("srun", "import subprocess, sys\nsys.exit(subprocess.call(sys.argv[sys.argv.index('bash'):]))")
    stub("scontrol", "import sys\nopen('requeued', 'w').write(' '.join(sys.argv[1:]))")
    stub(
        "mmpretrain",
        f"""import os, sys
print(os.environ["MMPRETRAIN_COORDINATOR"], os.environ["MMPRETRAIN_NUM_PROCESSES"], os.environ["MMPRETRAIN_PROCESS_ID"])
print(sys.argv[1:])
sys.exit({code})""",
    )
    monkeypatch.chdir(tmp_path)
    slurm = {"SLURM_JOB_ID": "4007", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    command = ["bash", LAUNCH / "slurm.sbatch", "pretrain", "--config.workdir=two words"]
    result = subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True, timeout=30)
    assert result.returncode == code
    assert result.stdout.splitlines()[:2] == ["10.0.0.7:61007 2 1", "['pretrain', '--config.workdir=two words']"]
    assert (tmp_path / "requeued").exists() == (code == 75)
    if code == 75:
        assert (tmp_path / "requeued").read_text() == "requeue 4007"
