"""What a request costs an installation that has much: keys, and a past. Both are written straight into the data folder of a
stopped server, through the product's own journal and log."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cli.wiring import utc_now
from domain.credential import SERVICE, make_key, redact
from domain.envelope import Envelope
from domain.service_key import ApiKeyIssued, KeyRights
from infra.adapters.data_folder import DataFolder
from infra.adapters.ids import new_id
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_journal import SQLiteJournal
from tests.bench import load, past
from tests.bench.backends import PATH, Backends
from tests.bench.calls import Call, bearer, plain
from tests.bench.processes import cpu_seconds, memory_mb, own_cpu_seconds
from tests.bench.product import ORG, Server, server
from tests.bench.report import Table

KEYS = (10, 1_000, 100_000)
PAST = (0, 1_000_000)

CONNECTIONS = 64
_AT_ONCE = 500
_HEAD = ("", "requests/s at 64", "CPU us/request", "p50 / p99 ms", "memory MB, main process", "started in, s")


def measured(folder: Path, behind: Backends, seconds: int, keys: Sequence[int], requests: Sequence[int]) -> Table:
    """A line for each number of keys, all in use in turn, and for each number of past requests."""
    lines: list[Sequence[str]] = [_HEAD]
    if keys:
        lines += _by_keys(folder / "keys", behind, seconds, keys)
    if requests:
        lines += _by_past(folder / "past", behind, seconds, requests)
    return lines


def _by_keys(folder: Path, behind: Backends, seconds: int, wanted: Sequence[int]) -> Sequence[Sequence[str]]:
    folder.mkdir()
    lines, known = [], list[str]()
    with server(folder) as made:
        made.set_up(behind)
    for number in sorted(wanted):
        known += _keys_issued(folder / "data", number - len(known))
        lines.append(_line(f"{number:,} keys", folder, lambda made: plain(made.url + PATH, {}), seconds, known))
    return lines


def _by_past(folder: Path, behind: Backends, seconds: int, wanted: Sequence[int]) -> Sequence[Sequence[str]]:
    folder.mkdir()
    lines, before = [], 0
    with server(folder) as made:
        key = made.set_up(behind).budget
        load.run(plain(made.url + PATH, bearer(key)), 1, 1, folder)
    for number in sorted(wanted):
        asyncio.run(past.requests(folder / "data", number - before))
        before = number
        with server(folder) as made:  # takes the past into its views
            made.seconds_to_zero()
        lines.append(
            _line(f"{number:,} past requests", folder, lambda made: plain(made.url + PATH, bearer(key)), seconds)
        )
    return lines


def _line(
    what: str, folder: Path, call: Callable[[Server], Call], seconds: int, keys: Sequence[str] = ()
) -> Sequence[str]:
    began = time.monotonic()
    with server(folder) as made:
        started = time.monotonic() - began
        load.run(call(made), CONNECTIONS, 2, folder, keys)
        before, own = cpu_seconds(made.pid), own_cpu_seconds(made.pid)
        figures = load.run(call(made), CONNECTIONS, seconds, folder, keys)
        used, used_own = cpu_seconds(made.pid) - before, own_cpu_seconds(made.pid) - own
        if figures.errors:
            raise RuntimeError(f"{what}: {figures.errors} of {figures.requests} requests went wrong")
        each = 1e6 / figures.requests
        return (
            what,
            f"{figures.per_second:,.0f}",
            f"{used * each:,.0f} ({used_own * each:,.0f})",
            f"{figures.p50:.2f} / {figures.p99:.2f}",
            f"{memory_mb(made.pid):.0f}",
            f"{started:.1f}",
        )


def _keys_issued(data: Path, number: int) -> list[str]:
    """Issues `number` keys of the organization with a budget, as the command would; answers them."""
    secret = DataFolder(data).secret()
    secrets = InstallationSecrets(secret)
    keys = [make_key(SERVICE, secrets.random(256)) for _ in range(number)]
    journal = SQLiteJournal(data / "journal.db", secret, utc_now)
    try:
        for first in range(0, number, _AT_ONCE):
            events = [_issued(key, secrets.hash(key)) for key in keys[first : first + _AT_ONCE]]
            journal.append(events, {event.stream: 0 for event in events}, None)
    finally:
        journal.close()
    return keys


def _issued(key: str, hashed: str) -> Envelope:
    event = ApiKeyIssued(
        name="bench", project="main", user=None, rights=KeyRights(), expires_at=None, hash=hashed, redacted=redact(key)
    )
    return Envelope(
        id=new_id("evt"),
        type=type(event).__name__,
        org=ORG,
        stream=f"{ORG}/key/{new_id('key')}",
        version=1,
        occurred_at=utc_now(),
        actor="bench",
        data=event,
    )
