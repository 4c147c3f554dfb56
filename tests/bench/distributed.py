"""The distributed part of ``make bench``: one gateway on a core of its own, all servers and other processes on the other."""

import os
import secrets
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from infra.stack import Stack
from tests.bench import load
from tests.bench.processes import free_port, own_cpu_seconds, process
from tests.bench.product import Server, commands_per_second

FRESH_SECONDS = 10
FRESH_PER_SECOND = 200
SENDERS = 8
ADMINS = 64


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
        print(f"commands/s, {ADMINS} admins: {commands_per_second(made.control, ADMINS, seconds / 2):,.0f}")
        _freshness(made, url, key, plain)
        for name in ("balances", "usage"):
            print(f"{made.read.rebuild(name)} (from Kafka)")


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


def _freshness(made: House, url: str, key: str, plain: str) -> None:
    """Milliseconds from an answer to its request being in the read API, while other requests go through: 200 a second are
    asked for, and those that were answered are counted."""
    stop, sent = threading.Event(), [0] * SENDERS
    senders = [threading.Thread(target=_paced, args=(url, key, plain, stop, sent, n)) for n in range(SENDERS)]
    began = time.monotonic()
    for sender in senders:
        sender.start()
    found: list[float] = []
    deadline = time.monotonic() + FRESH_SECONDS
    try:
        while time.monotonic() < deadline:
            position, answered = _asked(url, key, plain)
            made.read.call("GET", "/read/v1/orgs/bench/budgets/cap", position=position)
            found.append((time.monotonic() - answered) * 1000)
    finally:
        stop.set()
        for sender in senders:
            sender.join()
    reached = sum(sent) / (time.monotonic() - began)
    found.sort()
    print(
        f"freshness at {reached:.0f} requests/s ({FRESH_PER_SECOND} asked for): p50 {statistics.median(found):.0f} ms, "
        f"p99 {found[int(len(found) * 0.99)]:.0f} ms ({len(found)} reads)"
    )


def _paced(url: str, key: str, plain: str, stop: threading.Event, sent: list[int], number: int) -> None:
    due = time.monotonic()
    while not stop.is_set():
        _asked(url, key, plain)
        sent[number] += 1
        due += SENDERS / FRESH_PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))


def _asked(url: str, key: str, plain: str) -> tuple[str, float]:
    """The position of an answered request, and when its answer was there."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, plain.encode(), headers), timeout=30) as answer:
        answer.read()
        return str(answer.headers["x-tollhouse-position"]), time.monotonic()
