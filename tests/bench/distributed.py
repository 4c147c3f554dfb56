"""The distributed part of ``make bench``: one gateway on a core of its own, all servers and other processes on the other."""

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from infra.stack import Stack
from tests.bench import freshness, load
from tests.bench.backends import PATH, Backends
from tests.bench.calls import GATEWAY, REST, bearer, plain, streamed
from tests.bench.commands import commanded, moved
from tests.bench.processes import free_port, on_cores, pin, process
from tests.bench.product import GOVERNED, UNBUDGETED, Server
from tests.bench.targets import Seen, Target, seen

NAME = "Tollhouse distributed"
FRESH_SECONDS = 10
ADMINS = (1, 64)


@dataclass(frozen=True, slots=True)
class House:
    """`control` takes commands, `gateway` requests, `read` reads; `workers` and `servers` can be stopped."""

    control: Server
    gateway: str
    gateway_pid: int
    read: Server
    worker_pid: int
    environ: dict[str, str]

    def target(self, name: str, tier: str, key: str, behind: Backends) -> Target:
        """The gateway as the comparison sees it."""
        url, headers = self.gateway + PATH, bearer(key)
        return Target(name, tier, self.gateway_pid, plain(url, headers), streamed(url, headers), behind.direct)

    @contextmanager
    def without_workers(self) -> Iterator[None]:
        """The views stand still; the gate is settled by nobody either, which a hard budget with room does not notice."""
        os.kill(self.worker_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.worker_pid, signal.SIGCONT)


@contextmanager
def house(folder: Path) -> Iterator[House]:
    """A whole installation on real servers, pinned."""
    with on_cores([REST]), Stack(folder / "stack", 1) as stack, ExitStack() as processes:
        local = {"TOLLHOUSE_SECRET": secrets.token_hex(32), "TOLLHOUSE_ALLOW_PRIVATE": "true"}
        environ = {**os.environ, **stack.environment, **local}
        command = [sys.executable, "-m", "cli.main"]
        ran = subprocess.run([*command, "bootstrap"], check=True, capture_output=True, text=True, env=environ)
        key = next(line.split()[-1] for line in ran.stdout.splitlines() if line.startswith("admin key "))
        urls, pids = {}, {}
        for kind, core in (("control", REST), ("worker", REST), ("read", REST), ("gateway", GATEWAY)):
            port, log = free_port(), folder / f"{kind}.log"
            started = process([*command, kind, "--listen", f"127.0.0.1:{port}"], core, log, environ)
            child = processes.enter_context(started)
            urls[kind], pids[kind] = f"http://127.0.0.1:{port}", child.pid
        for kind, url in urls.items():
            _until_ready(f"{url}/readyz", folder / f"{kind}.log")
        control = Server(urls["control"], pids["control"], key, folder)
        read = Server(urls["read"], pids["read"], key, folder)
        yield House(control, urls["gateway"], pids["gateway"], read, pids["worker"], environ)


def _until_ready(url: str, log: Path, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} is not ready:\n{log.read_text()[-3000:]}")


def bench(folder: Path, behind: Backends, seconds: int, rows: list[Seen]) -> Iterator[str]:
    """Adds the comparison's rows of a gateway to `rows`, and tells every other figure of distributed mode."""
    folder.mkdir()
    with house(folder) as made:
        keys = made.control.set_up(behind)
        call = plain(made.gateway + PATH, bearer(keys.budget))
        load.run(call, 64, 5, folder)  # a cold broker stands still for a second now and then
        with made.without_workers():
            for tier, key in ((GOVERNED, keys.budget), (UNBUDGETED, keys.free)):
                rows.append(seen(made.target(f"{NAME}, workers stopped", tier, key, behind), seconds, folder))
        made.read.seconds_to_zero()
        rows.append(seen(made.target(f"{NAME}, workers running", GOVERNED, keys.budget, behind), seconds, folder))
        lag = made.read.lag()
        yield f"views: {lag:,} records behind at the end of the load, {made.read.seconds_to_zero():.1f} s to zero"
        yield _fed(made)
        yield from _commands(made, max(2, seconds // 2), folder)
        read = made.read
        read.seconds_to_zero()  # of the commands
        yield str(
            freshness.measured(made.gateway, read.url, read.admin_key, keys.budget, call.body, FRESH_SECONDS, [GATEWAY])
        )
        pin(made.read.pid, GATEWAY)
        for name in ("balances", "usage"):
            yield f"{made.read.rebuild(name)} (from Kafka, by a read process on the gateway's core, the servers on the other)"


def _commands(made: House, seconds: int, folder: Path) -> Iterator[str]:
    for admins in ADMINS:
        yield f"{admins} admins, everything on one core: {commanded(made.control, admins, seconds, REST, folder)}"
    with moved(GATEWAY, REST, made.control.pid, [made.gateway_pid]):
        for admins in ADMINS:
            done = commanded(made.control, admins, seconds, REST, folder)
            yield f"{admins} admins, the control process on its own: {done}"


def _fed(made: House) -> str:
    """One agent alone, from the beginning of the topic into an empty database."""
    url = made.environ["TOLLHOUSE_POSTGRES"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench")
    with made.without_workers():
        command = [sys.executable, "-m", "tests.bench.feeder", make_conninfo(url, dbname="bench")]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=made.environ)
    facts, seconds = ran.stdout.split()
    return f"facts to balances, one agent alone: {int(facts):,} in {float(seconds):.1f} s: {int(facts) / float(seconds):,.0f}/s"
