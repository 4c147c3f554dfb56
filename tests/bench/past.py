"""A past for a data folder: the facts of requests that were served before, written as the product's log writes them.

They are copies of a request that the product served and recorded itself, each with its own ids and its own moment, spread
over the days before; a request of an earlier month has that month's bucket.
"""

import asyncio
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from domain.envelope import Envelope, decode, encode
from domain.facts import RequestAdmitted, RequestCompleted
from domain.ids import made_id, partition_of, uuid7
from domain.period import Period, window
from domain.registry import decode_event
from infra.adapters.sqlite_log import SqliteLog, SqliteLogReader
from projections.ports import FACTS
from tests.bench.product import ORG

DAYS = 30
_AT_ONCE = 2_000
_MONTH = Period(kind="month")


async def requests(data: Path, number: int) -> None:
    """Appends `number` requests, admitted and completed, to the log of a stopped server that has served one."""
    log = SqliteLog(data / "log.db", "normal")
    try:
        admitted, completed = _pattern(data)
        partition, waits = partition_of(ORG), []
        for body in _bodies(admitted, completed, number):
            waits.append(log.append(partition, body))
            if len(waits) == _AT_ONCE:
                await asyncio.gather(*waits)
                waits = []
        await asyncio.gather(*waits)
    finally:
        await log.close()


def _pattern(data: Path) -> tuple[RequestAdmitted, RequestCompleted]:
    """The last request that the log has, whole."""
    reader, partition = SqliteLogReader(data / "log.db", FACTS), partition_of(ORG)
    try:
        end = reader.end(partition)
        envelopes = [decode(record.value) for record in reader.read(partition, max(0, end - 100), 100)]
    finally:
        reader.close()
    decoded = {type(fact): fact for fact in (decode_event(envelope) for envelope in envelopes)}
    return decoded[RequestAdmitted], decoded[RequestCompleted]


def _bodies(admitted: RequestAdmitted, completed: RequestCompleted, number: int) -> Iterator[bytes]:
    """The stored facts of `number` requests, evenly over the days that end now."""
    now = datetime.now(UTC)
    step = timedelta(days=DAYS) / max(1, number)
    for place in range(number, 0, -1):
        at = now - step * place
        request = made_id("req", uuid7(int(at.timestamp() * 1000), secrets.randbits(74)))
        month = window(_MONTH, at)
        holds = tuple(
            replace(hold, bucket=f"{hold.bucket.partition('.')[0]}.{month.bucket}", until=month.until)
            for hold in admitted.budgets
        )
        same = {"request": request, "attempt": request, "accounted_at": at}
        yield _stored(replace(admitted, budgets=holds, deadline=at + timedelta(seconds=605), **same), at)
        yield _stored(replace(completed, **same), at)


def _stored(fact: RequestAdmitted | RequestCompleted, at: datetime) -> bytes:
    id = made_id("evt", uuid7(int(at.timestamp() * 1000), secrets.randbits(74)))
    stream = f"{fact.org}/request/{fact.attempt}"
    return encode(
        Envelope(
            id=id, type=type(fact).__name__, org=fact.org, stream=stream, occurred_at=at, actor=fact.key, data=fact
        )
    )
