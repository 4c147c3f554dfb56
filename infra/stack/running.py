"""Servers that run: waiting until they answer, and ending them."""

import signal
import time
from collections.abc import Callable, Collection, Sequence

from domain.errors import Unavailable
from infra.stack.process import Process
from infra.stack.server import Server, log_end, parts, sweep

READY_SECONDS = 60.0
"""After so long something is wrong with a server that does not answer, and not with the machine."""

STOP_SECONDS = 10.0
"""How long a server may take to end cleanly before it is killed. The last of three brokers takes 5 s: it waits for the others."""

_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0

Started = tuple[Server, Process]


def wait_ready(started: Sequence[Started], running: Callable[[], Collection[str]]) -> None:
    """Returns once every server answers as it will answer clients. `running`: all servers that run at the moment.

    Raises `Unavailable` naming the server that ended, or what is awaited from one when the time is over.
    """
    deadline = time.monotonic() + READY_SECONDS
    waiting = list(started)
    while True:
        silent = []
        for server, process in waiting:
            if not process.alive:
                raise Unavailable(f"{server.name} ended while it started: {log_end(server)}", code="stack_failed")
            if awaited := server.awaited(running()):
                silent.append((server, process, awaited))
        if not silent:
            return
        if time.monotonic() > deadline:
            server, _, awaited = silent[0]
            raise Unavailable(
                f"{server.name} does not answer; awaited is {awaited}; it printed: {log_end(server)}",
                code="stack_failed",
            )
        waiting = [(server, process) for server, process, _ in silent]
        time.sleep(_POLL_SECONDS)


def stop(started: Sequence[Started]) -> None:
    """Ends servers cleanly and all at once, and kills those that do not end in time. Nothing of them is left."""
    for server, process in started:
        process.signal(server.stop_signal)
        send(server, process, signal.SIGCONT)
    deadline = time.monotonic() + STOP_SECONDS
    for server, process in started:
        if not process.ended(max(deadline - time.monotonic(), 0)):
            kill(server, process)
        sweep(server)


def kill(server: Server, process: Process) -> None:
    """SIGKILL to the server alone. Returns once it has ended."""
    process.signal(signal.SIGKILL)
    if not process.ended(_KILL_SECONDS):
        raise Unavailable(f"{server.name}, process {process.pid}, does not end", code="stack_failed")


def send(server: Server, process: Process, number: int) -> None:
    """A signal to the server and to each of its children."""
    for part in {process, *parts(server)}:
        part.signal(number)
