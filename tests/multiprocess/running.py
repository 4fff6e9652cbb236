"""Starts real processes of one run on this machine."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.end_to_end.conftest import CHECKOUT


class Processes:
    """`count` processes of a module, each with `devices` virtual CPU devices; outputs go to files beside `output`."""

    def __init__(self, count: int, devices: int, output: Path, *command: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        output.parent.mkdir(parents=True, exist_ok=True)
        self.files = [output.with_name(f"{output.name}.{index}.log") for index in range(count)]
        self.started = []
        for index, file in enumerate(self.files):
            place = {
                "MMPRETRAIN_COORDINATOR": address, "MMPRETRAIN_NUM_PROCESSES": str(count),
                "MMPRETRAIN_PROCESS_ID": str(index),
            }  # fmt: skip
            settings = {"JAX_NUM_CPU_DEVICES": str(devices)}
            with open(file, "w") as printed:
                env, whole = os.environ | place | settings, [sys.executable, "-m", *command]
                process = subprocess.Popen(whole, cwd=CHECKOUT, stdout=printed, stderr=subprocess.STDOUT, env=env)
            self.started.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.started:
            process.kill()
            process.wait()

    def output(self, index: int) -> str:
        return self.files[index].read_text()

    def wait(self, timeout_sec: float = 500) -> list[int]:
        """The exit codes of all."""
        deadline = time.monotonic() + timeout_sec
        return [process.wait(max(1.0, deadline - time.monotonic())) for process in self.started]

    def wait_for(self, file: Path, timeout_sec: float = 400) -> None:
        deadline = time.monotonic() + timeout_sec
        while not file.exists():
            assert time.monotonic() < deadline, f"{file} did not come: {self.output(0)}"
            assert self.started[0].poll() is None, self.output(0)
            time.sleep(0.02)


class RunOfSound(Processes):
    """Processes of `mmpretrain STAGE` on sound.py."""

    def __init__(self, count: int, devices: int, corpus: Path, workdir: Path, *arguments: str, stage: str = "run"):
        recipe = CHECKOUT / "tests" / "multiprocess" / "sound.py"
        super().__init__(
            count, devices, workdir, "mmpretrain", stage, f"--config={recipe}", f"--config.workdir={workdir}",
            f"--config.data.corpora[0].path={corpus}", "--config.parallel.lost_after_sec=8", *arguments,
        )  # fmt: skip
