"""What the stack needs to know of a kind of server, and how one is started."""

import signal
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from domain.errors import Unavailable
from infra.stack.ports import free
from infra.stack.process import Process, occupants, spawn

PROBE_SECONDS = 2.0
"""How long one question to a server may take."""

LOG_FILE = "server.log"

_SWEEP_SECONDS = 10.0


class Server(Protocol):
    """One server. `home`: its folder. `work`: the folder it works in. `program`: the file it runs, None where it is not
    installed. `ports`: those it listens on. `stop_signal`: the one that ends it cleanly and soon, whatever is connected."""

    @property
    def name(self) -> str: ...
    @property
    def home(self) -> Path: ...
    @property
    def work(self) -> Path: ...
    @property
    def program(self) -> Path | None: ...
    @property
    def ports(self) -> tuple[int, ...]: ...
    @property
    def stop_signal(self) -> int: ...

    def prepare(self) -> None:
        """Lays out what a server that does not run needs to start; done again it changes nothing. Raises `Unavailable`."""

    def command(self) -> Sequence[str]:
        """What starts it in the foreground."""

    def awaited(self, running: Collection[str]) -> str | None:
        """None once it answers as it will answer clients, else what is missing. `running`: the servers that run now."""


def missing(what: str, install: str) -> Unavailable:
    """The error that says what to install."""
    return Unavailable(f"{what} is missing: {install}", code="missing_dependency")


def launch(server: Server) -> Process:
    """Starts a server that was prepared and does not run. Raises `Unavailable` if another program holds its port."""
    for port in server.ports:
        if not free(port):
            raise Unavailable(
                f"port {port} of {server.name} is held by another program: end that, or use another folder",
                code="stack_failed",
            )
    return spawn(server.command(), server.home / LOG_FILE)


def parts(server: Server) -> list[Process]:
    """The processes in the server's working folder: the server and its children, also those it left behind."""
    return [] if server.program is None else occupants(server.work, server.program)


def sweep(server: Server) -> None:
    """Ends what a server that is dead left behind. Raises `Unavailable` if something cannot be ended."""
    left = parts(server)
    for process in left:
        process.signal(signal.SIGKILL)
    for process in left:
        if not process.ended(_SWEEP_SECONDS):
            raise Unavailable(f"process {process.pid}, left by {server.name}, does not end", code="stack_failed")


def log_end(server: Server) -> str:
    """The last lines that the server printed, as one line."""
    log = server.home / LOG_FILE
    lines = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
    return " | ".join(lines)[-600:]
