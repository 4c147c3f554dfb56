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
from tests.bench.commands import commanded, moved
from tests.bench.processes import free_port, own_cpu_seconds, pin, process
from tests.bench.product import Server

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

    @contextmanager
    def without_workers(self) -> Iterator[None]:
        """The views stand still; the gate is settled by nobody either, which a hard budget with room does not notice."""
        os.kill(self.worker_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.worker_pid, signal.SIGCONT)


@contextmanager
def house(folder: Path, gateway_core: int, rest: int) -> Iterator[House]:
    """A whole installation on real servers, pinned."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {rest})
    try:
        with Stack(folder / "stack", 1) as stack, ExitStack() as processes:
            local = {"TOLLHOUSE_SECRET": secrets.token_hex(32), "TOLLHOUSE_ALLOW_PRIVATE": "true"}
            environ = {**os.environ, **stack.environment, **local}
            command = [sys.executable, "-m", "cli.main"]
            ran = subprocess.run([*command, "bootstrap"], check=True, capture_output=True, text=True, env=environ)
            key = next(line.split()[-1] for line in ran.stdout.splitlines() if line.startswith("admin key "))
            urls, pids = {}, {}
            for kind, core in (("control", rest), ("worker", rest), ("read", rest), ("gateway", gateway_core)):
                port, log = free_port(), folder / f"{kind}.log"
                started = process([*command, kind, "--listen", f"127.0.0.1:{port}"], core, log, environ)
                child = processes.enter_context(started)
                urls[kind], pids[kind] = f"http://127.0.0.1:{port}", child.pid
            for kind, url in urls.items():
                _until_ready(f"{url}/readyz", folder / f"{kind}.log")
            control = Server(urls["control"], pids["control"], key, folder)
            read = Server(urls["read"], pids["read"], key, folder)
            yield House(control, urls["gateway"], pids["gateway"], read, pids["worker"], environ)
    finally:
        os.sched_setaffinity(0, mine)


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


def bench(folder: Path, backend: str, plain: str, seconds: int, gateway: int, rest: int) -> None:
    """Prints every figure of distributed mode."""
    folder.mkdir()
    with house(folder, gateway, rest) as made:
        key = made.control.set_up(backend)
        url = f"{made.gateway}/v1/chat/completions"
        load.run(url, key, plain, 64, 5, rest, folder)  # a cold broker stands still for a second now and then
        print("distributed: one gateway on a core; Kafka (acks=all), PostgreSQL, Redis and the rest on the other")
        with made.without_workers():
            for connections in (1, 64):
                _line("workers stopped", made, url, key, plain, connections, seconds, rest, folder)
        _caught_up(made)
        for connections in (1, 64):
            _line("workers running", made, url, key, plain, connections, seconds, rest, folder)
        lag = made.read.lag()
        print(f"views: {lag:,} records behind at the end of the load, {_caught_up(made):.1f} s to zero")
        _fed(made)
        _commands(made, max(2, seconds // 2), gateway, rest, folder)
        read = made.read
        print(freshness.measured(made.gateway, read.url, read.admin_key, key, plain, FRESH_SECONDS, [gateway]))
        pin(made.read.pid, gateway)
        for name in ("balances", "usage"):
            print(
                f"{made.read.rebuild(name)} (from Kafka, by a read process on the gateway's core, the servers on the other)"
            )


def _line(
    what: str, made: House, url: str, key: str, plain: str, connections: int, seconds: int, rest: int, folder: Path
) -> None:
    before = own_cpu_seconds(made.gateway_pid)
    figures = load.run(url, key, plain, connections, seconds, rest, folder)
    used = own_cpu_seconds(made.gateway_pid) - before
    print(
        f"  {what}, {connections:>2} connections: {figures.per_second:,.0f} requests/s, "
        f"{used / max(1, figures.requests) * 1e6:.0f} us CPU, p50 {figures.p50:.2f} ms, p99 {figures.p99:.2f} ms, "
        f"{figures.errors} of {figures.requests} not served"
    )


def _commands(made: House, seconds: int, core: int, rest: int, folder: Path) -> None:
    for admins in ADMINS:
        print(f"{admins} admins, everything on one core: {commanded(made.control, admins, seconds, rest, folder)}")
    with moved(core, rest, made.control.pid, [made.gateway_pid]):
        for admins in ADMINS:
            print(
                f"{admins} admins, the control process on its own: {commanded(made.control, admins, seconds, rest, folder)}"
            )


def _caught_up(made: House) -> float:
    return made.read.seconds_to_zero()


def _fed(made: House) -> None:
    """One agent alone, from the beginning of the topic into an empty database."""
    url = made.environ["TOLLHOUSE_POSTGRES"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench")
    with made.without_workers():
        command = [sys.executable, "-m", "tests.bench.feeder", make_conninfo(url, dbname="bench")]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=made.environ)
    facts, seconds = ran.stdout.split()
    print(
        f"facts to balances, one agent alone: {int(facts):,} in {float(seconds):.1f} s: {int(facts) / float(seconds):,.0f}/s"
    )
