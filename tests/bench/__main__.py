"""``make bench``: requests, streams, replay and commands of embedded mode, beside nginx as plain proxy in the same run.

The product is pinned to one core (main and views process alike), nginx as the backend and the load generator to the other.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench import distributed, load, nginx
from tests.bench.commands import commanded
from tests.bench.processes import cpu_seconds, free_port, own_cpu_seconds, process, require, wait_for
from tests.bench.product import server

GATEWAY, REST = 0, 1
"""Cores: the proxy under measurement has one to itself."""

_MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant. Answer in one short sentence."},
    {"role": "user", "content": "What is a gateway that keeps its own books, and why would anybody want one? " * 2},
]
PLAIN = json.dumps({"model": "bench", "max_tokens": 64, "messages": _MESSAGES})
STREAMED_TOKENS = 1000
TOKENS_PER_EVENT = 20
STREAMED = json.dumps({"model": "bench", "stream": True, "max_tokens": STREAMED_TOKENS, "messages": _MESSAGES})
EVENTS = STREAMED_TOKENS // TOKENS_PER_EVENT + 2
"""Events of one streamed answer: its pieces, the end of the text, and the end of the stream."""

Row = tuple[str, str, str, str, str, str]


def main(arguments: Sequence[str]) -> None:
    options = argparse.ArgumentParser(prog="make bench", description=__doc__)
    options.add_argument("--seconds", type=int, default=10, help="of each measurement")
    args = options.parse_args(arguments)
    require("nginx", "wrk")
    with tempfile.TemporaryDirectory(prefix="tollhouse-bench-") as name:
        _bench(Path(name), args.seconds)


def _bench(folder: Path, seconds: int) -> None:
    backend, proxy = free_port(), free_port()
    rows: list[Row] = []
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {seconds} s a figure")
    with process(["nginx", "-c", str(nginx.backend(folder, backend))], REST, folder / "backend.log"):
        with process(["nginx", "-c", str(nginx.proxy(folder, proxy, backend))], GATEWAY, folder / "proxy.log") as floor:
            url = f"http://127.0.0.1:{proxy}/v1/chat/completions"
            wait_for(url, folder / "proxy.log")
            best = _measure("nginx, plain proxy", url, "none", PLAIN, floor.pid, folder, seconds, rows)
        with server(folder, GATEWAY) as target:
            key = target.set_up(f"http://127.0.0.1:{backend}")
            url = f"{target.url}/v1/chat/completions"
            load.run(url, key, PLAIN, 64, 2, REST, folder)
            target.seconds_to_zero()
            ours = _measure("tollhouse: key, budget, durable", url, key, PLAIN, target.pid, folder, seconds, rows)
            lag = target.lag()
            print(f"views: {lag:,} records behind at the end of the load, {target.seconds_to_zero():.1f} s to zero")
            _table(rows)
            print(f"ratio to nginx at 64 connections: {ours / best:.2f}")
            for name in ("balances", "usage"):
                print(target.rebuild(name))
            for admins in (1, 16, 64):
                print(f"{admins} admins: {commanded(target, admins, max(2, seconds // 2), REST, folder)}")
        distributed.bench(folder / "distributed", f"http://127.0.0.1:{backend}", PLAIN, seconds, GATEWAY, REST)
    _streams(folder / "streams", seconds)


def _measure(name: str, url: str, key: str, body: str, pid: int, folder: Path, seconds: int, rows: list[Row]) -> float:
    """Figures at 1 and 64 connections; requests a second at 64."""
    per_second = 0.0
    for connections in (1, 64):
        before, own = cpu_seconds(pid), own_cpu_seconds(pid)
        figures = load.run(url, key, body, connections, seconds, REST, folder)
        if figures.errors:
            sys.exit(f"{name}: {figures.errors} of {figures.requests} requests went wrong")
        used, used_own = cpu_seconds(pid) - before, own_cpu_seconds(pid) - own
        micros = f"{used / figures.requests * 1e6:.0f}" + (
            f" ({used_own / figures.requests * 1e6:.0f} main)" if used > used_own else ""
        )
        rows.append(
            (name, str(connections), f"{figures.per_second:,.0f}", micros, f"{figures.p50:.2f}", f"{figures.p99:.2f}")
        )
        per_second = figures.per_second
    return per_second


def _streams(folder: Path, seconds: int) -> None:
    """Streams from the Hello service: CPU of the router per event relayed."""
    folder.mkdir()
    port = free_port()
    hello = [sys.executable, "-m", "cli.main", "hello", "--listen", f"127.0.0.1:{port}"]
    with process(hello, REST, folder / "hello.log"), server(folder, GATEWAY) as target:
        wait_for(f"http://127.0.0.1:{port}/v1/models", folder / "hello.log")
        key = target.set_up(f"http://127.0.0.1:{port}")
        url = f"{target.url}/v1/chat/completions"
        load.run(url, key, STREAMED, 16, 2, REST, folder)
        before = own_cpu_seconds(target.pid)
        figures = load.run(url, key, STREAMED, 64, seconds, REST, folder)
        used = own_cpu_seconds(target.pid) - before
        micros = used / (figures.requests * EVENTS) * 1e6
        print(
            f"streams of {EVENTS} events, 64 at once: {figures.per_second:,.0f} streams/s, "
            f"{figures.per_second * EVENTS:,.0f} events/s, {micros:.1f} us CPU an event, {figures.errors} errors"
        )


def _table(rows: Sequence[Row]) -> None:
    head = ("", "connections", "requests/s", "CPU us/request", "p50 ms", "p99 ms")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print(
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )


if __name__ == "__main__":
    main(sys.argv[1:])
