"""One owner for a folder: a lease with a heartbeat, on any file system that several machines share (NFS, say).

`.lease/N.json` in the folder says who its owner is; N counts the owners. To become the next is to make the next file,
which one process alone can. An owner touches its file every `BEAT_SEC`. Others watch whether the file's time changes
and compare it with no clock, so clocks may differ. An owner is gone that has said so (`N.released`), whose process is
dead on this very machine, or that gave no sign for `LOST_SEC`: then the next takes over. An owner that finds itself
followed, or its file removed, has lost the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mmpretrain.files import DamagedError, read_json, write_new

BEAT_SEC = 5.0
LOST_SEC = 90.0  # clients of NFS and of mounted buckets may see a change a minute late
POLL_SEC = 0.5
LEASES = ".lease"
_KEPT = 3  # files of earlier owners: a machine that sees an old list of the folder meets one of them


class HeldError(ValueError):
    """Another process owns the folder; the message says which, and what to do."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """The newest owner of a folder. machine: until it starts anew. started: of the process, as the system counts it.

    A file that cannot be read, e.g. while it is being written, leaves all fields but the first two empty.
    """

    file: Path
    number: int
    token: str = ""
    user: str = ""
    host: str = ""
    machine: str = ""
    pid: int = 0
    started: str = ""
    since: str = ""
    command: str = ""

    def __str__(self) -> str:
        if not self.host:
            return "another process"
        return f"`{self.command}` of {self.user} on {self.host}, process {self.pid}, since {self.since}"

    @property
    def is_gone(self) -> bool:
        """It said so, or it is dead on this machine."""
        if self.file.with_suffix(".released").exists():
            return True
        return self.is_here and _started(self.pid) != self.started

    @property
    def is_here(self) -> bool:
        """It is of this machine, where it can be seen whether its process lives."""
        return bool(self.machine) and self.machine == _machine()

    def lives(self, now: float) -> bool:
        """Whether it still owns the folder, for one who only looks. now: of this machine's clock.

        Waits for a sign of life, for some seconds, only where the last one is long ago or yet to come by that clock.
        """
        if self.is_gone or self.is_here:
            return not self.is_gone
        try:
            first = self.last_beat()
            if 0 <= now - first / 1e9 <= LOST_SEC:
                return True
            end = time.monotonic() + 2.5 * BEAT_SEC
            while time.monotonic() < end and not self.is_gone:
                if self.last_beat() != first:
                    return True
                time.sleep(POLL_SEC)
        except FileNotFoundError:
            pass
        return False

    def last_beat(self) -> int:
        """When it gave its last sign, in nanoseconds of the file system's clock. Raises FileNotFoundError."""
        with open(self.file, "rb") as file:  # an NFS client asks the server when a file is opened, not always before
            return os.fstat(file.fileno()).st_mtime_ns


def newest_owner(folder: Path) -> Owner | None:
    """Who owns the folder, or owned it last; None if nobody ever did."""
    number = max(_numbers(folder), default=0)
    if not number:
        return None
    file = folder / LEASES / f"{number}.json"
    try:
        said = read_json(file, fields=[field.name for field in dataclasses.fields(Owner)[2:]])
        return Owner(file, number, **{field.name: said[field.name] for field in dataclasses.fields(Owner)[2:]})
    except (FileNotFoundError, DamagedError):
        return Owner(file, number)


class Lease:
    """Makes this process the owner of `folder`. A context manager around all that is written into it.

    option: that names the folder, for messages. say: told what is being waited for. on_lost: called once, in a thread
    of its own, with a line, when another process has taken over; nothing may be written into the folder after that.
    Entering raises HeldError while the owner lives.
    """

    def __init__(self, folder: Path, option: str, *, on_lost: Callable[[str], None], say: Callable[[str], None]):
        self._folder, self._option, self._on_lost, self._say = folder, option, on_lost, say
        self._over = threading.Event()
        self._own: Owner | None = None

    @property
    def own(self) -> Owner:
        """What was written of this process."""
        assert self._own is not None, "not entered"
        return self._own

    def __enter__(self) -> Lease:
        (self._folder / LEASES).mkdir(parents=True, exist_ok=True)
        while self._own is None:
            before = newest_owner(self._folder)
            if before is not None and not before.is_gone and not self._falls_silent(before):
                continue  # another has followed it meanwhile
            self._own = self._follow(before.number if before else 0)
        for number in _numbers(self._folder):
            if number < self.own.number - _KEPT:
                for ending in ("json", "released"):
                    (self._folder / LEASES / f"{number}.{ending}").unlink(missing_ok=True)
        threading.Thread(target=self._beat, name="lease", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """May be called again, and from any thread."""
        if self._own is not None and not self._over.is_set():
            self._over.set()
            with contextlib.suppress(OSError):  # the folder may be gone
                write_new(self._own.file.with_suffix(".released"), "")

    def _falls_silent(self, owner: Owner) -> bool:
        """True when the owner is gone or gave no sign for `LOST_SEC`, False when it is no more the newest.

        Raises HeldError at its first sign.
        """
        begin, told = time.monotonic(), False
        with contextlib.suppress(FileNotFoundError):
            first = owner.last_beat()
            while time.monotonic() - begin < LOST_SEC:
                time.sleep(POLL_SEC)
                if max(_numbers(self._folder), default=0) != owner.number:
                    return False
                if owner.is_gone:
                    return True
                if owner.last_beat() != first:
                    known = newest_owner(self._folder) or owner  # it may have been half written before
                    raise HeldError(
                        f"{self._option}={self._folder} is in use by {known}; wait for it to end, stop it there"
                        + (f" (kill -TERM {known.pid})" if known.pid else "")
                        + f", or give another {self._option}"
                    )
                if not told and time.monotonic() - begin > 2 * BEAT_SEC:
                    told = True
                    self._say(
                        f"{self._folder} was left in use by {owner}; it is taken over unless that gives a sign of life "
                        f"within {LOST_SEC:.0f} s"
                    )
            return True
        time.sleep(POLL_SEC)  # its file is gone, though not yet from the list that this machine has
        return False

    def _follow(self, number: int) -> Owner | None:
        """Becomes the owner after that of `number`; None if another was quicker."""
        said = {
            "token": secrets.token_hex(16), "user": _user(), "host": socket.gethostname(), "machine": _machine(),
            "pid": os.getpid(), "started": _started(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]),
        }  # fmt: skip
        file = self._folder / LEASES / f"{number + 1}.json"
        if not write_new(file, json.dumps(said) + "\n"):
            return None
        if max(_numbers(self._folder)) > number + 1:  # what this machine had seen of the folder was old
            return None
        return Owner(file, number + 1, **said)

    def _beat(self) -> None:
        beat = time.monotonic()
        while not self._over.wait(BEAT_SEC):
            try:
                newest = max(_numbers(self._folder), default=0)
                if newest == self.own.number:
                    os.utime(self.own.file)
                    beat = time.monotonic()
                    continue
            except FileNotFoundError:
                newest = 0
            except OSError:  # storage that does not answer; if it does to others, they will take over
                continue
            if self._over.is_set():
                return
            silent = f"this process gave no sign of life for {time.monotonic() - beat:.0f} s"
            other = f"{newest_owner(self._folder)} has taken it over ({silent})" if newest else "its lease was removed"
            self._over.set()
            self._on_lost(f"{self._option}={self._folder} is not this process's any more: {other}; nothing is written")
            return


def _numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder / LEASES)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        int(name[: -len(".json")]) for name in names if name.endswith(".json") and name[: -len(".json")].isdecimal()
    ]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _machine() -> str:
    """Equal where process numbers mean the same: this start of this machine, or of a container. "" if not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process began, in ticks since this machine started; "" if it is dead. Tells a number used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
