"""The processes of one machine, started, listened to and ended together; `local.sh` calls it.

    supervise.py GPUS COMMAND [...]

Starts MMPRETRAIN_NUM_PROCESSES times `mmpretrain COMMAND [...]`. GPUS has one number for each process, separated by
commas, or is empty for processes that may see what this one sees.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import BinaryIO

NAME = "launch/local.sh"
PREEMPTED = 75
# A terminal sends Ctrl-C to every process of the group; they hear of it from here, as SIGTERM.
DEAF_TO_CTRL_C = ["sh", "-c", 'trap "" INT; exec mmpretrain "$@"', "sh"]
TOLD = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM,
        signal.SIGUSR1: signal.SIGUSR1}  # fmt: skip
GRACE_SEC = float(os.environ.get("MMPRETRAIN_GRACE_SEC", 90))  # for the others once a process has failed


def copy_lines(number: int, lines: BinaryIO) -> None:
    """Writes every line with the number of its process; a reader that has gone closes the process's output too."""
    with lines, contextlib.suppress(BrokenPipeError):
        for line in lines:
            sys.stdout.buffer.write(b"[%d] %s\n" % (number, line.removesuffix(b"\n")))
            sys.stdout.buffer.flush()


def main(gpus: list[str], command: list[str]) -> int:
    """Runs all processes to their end and returns the code of the job."""
    processes: list[subprocess.Popen] = []
    received: list[signal.Signals] = []
    left: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()  # (number of the process, its code)

    def tell_all(number: signal.Signals) -> None:
        for process in processes:
            process.send_signal(number)  # does nothing to one that has left

    def on_signal(number: int, _frame: object) -> None:
        received.append(TOLD[number])
        tell_all(TOLD[number])

    for number in TOLD:
        signal.signal(number, on_signal)

    copying = []
    for number in range(int(os.environ["MMPRETRAIN_NUM_PROCESSES"])):
        its_own = {"MMPRETRAIN_PROCESS_ID": str(number)} | ({"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {})
        process = subprocess.Popen(
            [*DEAF_TO_CTRL_C, *command], env=os.environ | its_own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        processes.append(process)
        for missed in received:  # while it was being started
            process.send_signal(missed)
        copying.append(threading.Thread(target=copy_lines, args=(number, process.stdout), daemon=True))
        copying[-1].start()
        threading.Thread(target=lambda n=number, p=process: left.put((n, p.wait())), daemon=True).start()

    failure, preempted, deadline = 0, False, None
    for _ in processes:
        try:
            number, code = left.get(timeout=deadline and max(0, deadline - time.monotonic()))
        except queue.Empty:
            tell_all(signal.SIGKILL)
            deadline = None
            number, code = left.get()
        code = 128 - code if code < 0 else code  # as a shell says that a signal ended it
        preempted |= code == PREEMPTED
        if code not in (0, PREEMPTED) and not failure:
            failure, deadline = code, time.monotonic() + GRACE_SEC
            print(f"{NAME}: process {number} left with {code}; the others have {GRACE_SEC:g} s to leave",
                  file=sys.stderr, flush=True)  # fmt: skip
    for thread in copying:
        thread.join(timeout=5)  # a worker process that outlives its own may hold the output open
    return failure or (PREEMPTED if preempted else 0)


if __name__ == "__main__":
    gpus, *command = sys.argv[1:]
    sys.exit(main(gpus.split(",") if gpus else [], command))
