"""Where the demo runs: everything in one process, or each process by itself on a stack of real servers; and the Hello service.

Every process is the product's own command, started and ended as a user would.
"""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.errors import TollhouseError
from infra.stack import Stack

END_SECONDS = 60.0
GATEWAYS, WORKERS = 2, 2

_BEHIND = dict.fromkeys(("worker", "read", "world"), ("nice", "-n", "10"))
"""Everything shares one machine here: the request path goes first, as in embedded mode."""


@dataclass(frozen=True, slots=True)
class House:
    """A running installation: `routers` take requests, `admin` commands and questions about the projections, `read` reads."""

    routers: Sequence[str]
    admin: str
    read: str
    admin_key: str
    hello: str
    journal: Path
    world: str | None = None
    """Where the World service answers, if it runs."""


@contextmanager
def embedded(folder: Path) -> Iterator[House]:
    """`tollhouse serve` on a folder of its own."""
    with _hello(folder) as (hello, journal), _process("serve", folder, "--data", str(folder / "data")) as url:
        key = (folder / "data" / "admin.key").read_text().strip()
        yield House((url,), url, url, key, hello, journal)


@contextmanager
def distributed(folder: Path) -> Iterator[House]:
    """Two gateways, two workers, one control, one read process and World on Kafka, PostgreSQL, Redis and ClickHouse."""
    with Stack(folder / "stack") as servers, _hello(folder) as (hello, journal), ExitStack() as stack:
        environ = servers.environment | {"TOLLHOUSE_SECRET": secrets.token_hex(32), "TOLLHOUSE_ALLOW_PRIVATE": "true"}
        key = _bootstrapped(environ)
        started = {
            name: stack.enter_context(_starting(command, folder, name=name, environ=environ))
            for command, count in (
                ("control", 1),
                ("worker", WORKERS),
                ("gateway", GATEWAYS),
                ("read", 1),
                ("world", 1),
            )
            for name in (f"{command}-{number}" for number in range(1, count + 1))
        }
        urls = {name: child.ready() for name, child in started.items()}
        routers = [url for name, url in urls.items() if name.startswith("gateway")]
        yield House(routers, urls["control-1"], urls["read-1"], key, hello, journal, urls["world-1"])


def _bootstrapped(environ: Mapping[str, str]) -> str:
    """The first admin key."""
    command = [sys.executable, "-m", "cli.main", "bootstrap"]
    ran = subprocess.run(command, env={**os.environ, **environ}, check=False, capture_output=True, text=True)
    if ran.returncode:
        raise TollhouseError(f"bootstrap failed: {ran.stderr}")
    return next(line.split()[-1] for line in ran.stdout.splitlines() if line.startswith("admin key "))


@contextmanager
def _hello(folder: Path) -> Iterator[tuple[str, Path]]:
    journal = folder / "hello.ndjson"
    with _process("hello", folder, "--journal", str(journal)) as url:
        yield url, journal


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    log: Path
    process: "subprocess.Popen[str]"

    def ready(self) -> str:
        """The URL of the ready line. Raises `TollhouseError` with the end of the log if it does not come."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready "):
                return line.split()[1]
        raise TollhouseError(f"{self.name} did not start:\n{self.log.read_text()[-2000:]}")


@contextmanager
def _starting(
    command: str, folder: Path, *options: str, name: str | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[_Child]:
    """A process of the product on a free port. Ended by SIGTERM."""
    log = folder / f"{name or command}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*_BEHIND.get(command, ()), sys.executable, "-m", "cli.main", command, "--listen", "127.0.0.1:0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environ or {})},
        )
    try:
        yield _Child(name or command, log, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def _process(command: str, folder: Path, *options: str) -> Iterator[str]:
    """The URL of a process that is ready."""
    with _starting(command, folder, *options) as child:
        yield child.ready()
