"""A real redis-server of a test's own: killed, restarted, saved, followed and promoted as the test likes."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from infra.stack.ports import HOST, choose, free
from infra.stack.redis import Redis
from tests.waiting import PATIENCE


class RedisServer:
    """On the loopback interface, on a port that stays its own. It writes nothing to disk unless told to SAVE."""

    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        self.port = next(
            port for port in choose(20) if free(port + 10_000)
        )  # where a cluster's node talks to the others
        program = Redis(folder, self.port).program
        assert program is not None, "no redis-server on this machine"
        # It dies with the thread that started it, so that a session that is killed leaves none behind.
        self._command = ["setpriv", "--pdeathsig", "KILL", str(program), "--bind", HOST, "--port", str(self.port)]
        self._command += ["--dir", str(folder), "--save", "", "--appendonly", "no", *flags]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns once it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended while it started"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL: what it had is gone, but for the file of its last SAVE."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(PATIENCE)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def calls(self, *commands: str) -> int:
        """How often it has carried out `commands`."""
        stats = self.ask("INFO", "commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in commands)

    def ask(self, *words: str | int) -> Any:
        """A command from outside, on a connection of its own."""
        with redis.Redis(host=HOST, port=self.port, protocol=2) as client:
            return client.execute_command(*words)

    def info(self, name: str) -> str:
        """One field of INFO."""
        return str(self.ask("INFO")[name])

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def redis_server(*flags: str) -> Iterator[RedisServer]:
    """A server that answers, in a folder of its own; afterwards neither is left."""
    with TemporaryDirectory(prefix="tollhouse-redis-") as folder:
        server = RedisServer(Path(folder), flags)
        server.start()
        try:
            yield server
        finally:
            server.kill()
