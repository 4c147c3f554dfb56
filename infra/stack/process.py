"""Processes that were started here, told apart from every later process that has the same id.

A `Process` is an id together with the moment the process began, so one read from a file after a reboot, or after the id was
given to something else, is simply seen as ended. Signals go through a pidfd that is checked first: no other process is hit.
Linux only.
"""

import os
import select
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""All that a server inherits: what the caller exports must not change how it behaves."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ENDED = "ZX"
_STOPPED = "Tt"


class Process(msgspec.Struct, frozen=True):
    """`born`: the boot of the machine and the clock tick since, at which it began."""

    pid: int
    born: str

    @property
    def alive(self) -> bool:
        """It has not ended. A process that was stopped (SIGSTOP) is alive."""
        state, born = _state(self.pid)
        return born == self.born and state not in _ENDED

    @property
    def running(self) -> bool:
        """It is alive and not stopped."""
        state, born = _state(self.pid)
        return born == self.born and state not in _ENDED + _STOPPED

    def signal(self, number: int) -> bool:
        """Whether it was there to get the signal."""
        handle = self._open()
        if handle is None:
            return False
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def ended(self, seconds: float) -> bool:
        """Waits until it has ended, and takes its exit status if it is a child of this process. False: it goes on."""
        handle = self._open()
        if handle is None:
            return True
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(seconds * 1000):
                return False
            _reap(handle)
        finally:
            os.close(handle)
        return True

    def _open(self) -> int | None:
        """A pidfd. It is opened before the check: if this process is still there then, it is the one that is held."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if _state(self.pid)[1] == self.born:
            return handle
        os.close(handle)
        return None


def spawn(command: Sequence[str], log: Path) -> Process:
    """Starts a program (an absolute path) as a session of its own; what it prints is appended to `log`. It outlives us."""
    pid = os.posix_spawn(
        command[0],
        list(command),
        ENVIRONMENT,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT],
    )
    return Process(pid, _state(pid)[1])


def occupants(folder: Path, program: Path) -> list[Process]:
    """Processes of `program` whose working folder is `folder`: the children of a server among them."""
    found = []
    wanted = str(folder.resolve()), str(program.resolve())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            here = (os.readlink(entry / "cwd"), os.readlink(entry / "exe")) == wanted
        except OSError:
            continue  # it ended while we looked, or is another user's
        if here and (born := _state(int(entry.name))[1]):
            found.append(Process(int(entry.name), born))
    return found


def which(program: str) -> Path | None:
    """A program on the PATH or among the system's own, by the name it has there: some do different things by their name."""
    found = shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found).absolute() if found else None


def _state(pid: int) -> tuple[str, str]:
    """The letter of its state and its birth; both empty if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return fields[0], f"{_BOOT.read_text().strip()}/{fields[19]}"


def _reap(handle: int) -> None:
    try:
        os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return  # somebody else's child: init takes its status
