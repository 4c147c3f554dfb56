"""A real PostgreSQL for tests: durable (fsync on), on a free port of this machine, with databases of their own for each test."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from psycopg.conninfo import make_conninfo

from infra.stack import running
from infra.stack.ports import choose
from infra.stack.postgres import Postgres
from infra.stack.process import Process
from infra.stack.server import launch


@dataclass
class PostgresServer:
    """A server that can be killed and started again. Its port stays."""

    server: Postgres
    process: Process
    _names: Iterator[int] = field(default_factory=count)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, which goes afterwards, whoever is still connected."""
        name = f"test_{next(self._names)}"
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        yield make_conninfo(self.server.url, dbname=name)
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def kill(self) -> None:
        """SIGKILL to the server and all of its children at once: what was not durable is lost."""
        running.send(self.server, self.process, signal.SIGKILL)
        running.kill(self.server, self.process)

    def start(self) -> None:
        """Starts it again and returns when it answers."""
        self.process = launch(self.server)
        self.ready()

    def ready(self) -> None:
        running.wait_ready([(self.server, self.process)], lambda: {self.server.name})


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server in a folder of its own, gone afterwards."""
    with TemporaryDirectory(prefix="tollhouse-postgres-") as folder:
        home = Path(folder) / "postgres"
        home.mkdir()
        for path in (home, home.parent):
            path.chmod(0o755)
        server = Postgres(home, choose(1)[0], "test-password")
        server.prepare()
        started = PostgresServer(server, launch(server))
        try:
            started.ready()
            yield started
        finally:
            running.stop([(server, started.process)])
