import signal
import subprocess
import sys

INTERRUPTED = """
import os, signal, sys, time
from mmpretrain.parallel import stopping

class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # the signal is handled here, where Python drops what is raised

with stopping.listening():
    Callback()
    print("went on", flush=True)
    time.sleep(30)
"""


def test_ctrl_c_in_a_callback_ends_the_run():
    python = [sys.executable, "-c", INTERRUPTED]
    process = subprocess.run(python, capture_output=True, text=True, timeout=25, check=False)
    assert process.stdout == "went on\n"
    assert process.returncode == -signal.SIGINT, process.stderr
    assert "Exception ignored" not in process.stderr
