"""What happens to workers while they work: kill -9, joins, leaves, stores that go away, an event that is too new for them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest
from msgspec import structs

from domain.envelope import Envelope, StoredEnvelope, encode
from domain.errors import Unavailable
from domain.facts import RequestCompleted
from domain.ids import made_id, partition_of, uuid7
from domain.registry import decode_event
from projections import decoding
from projections.ports import FACTS
from tests.child import Child
from tests.factgen import Traffic
from tests.workers.house import House

NEXT_SCHEMA = 2


@dataclass(slots=True)
class Seen:
    """What was seen meanwhile: the longest lag of balances in records, and how often Kafka's offsets were compared."""

    lag: int = 0
    compared: int = 0
    ahead: list[str] = field(default_factory=list)


def poison(traffic: Traffic, org: str) -> int:
    """An admission of `org` and its completion, which is of a later schema than these workers know. Its offset."""
    partition = partition_of(org)
    admitted = traffic.admission(org, partition)
    traffic.append(partition, admitted)
    completed: RequestCompleted = traffic.completion(admitted)
    number = traffic.random.getrandbits(60)
    event = Envelope(
        id=made_id("evt", uuid7(int(traffic.now.timestamp() * 1000), number)),
        type="RequestCompleted",
        schema=NEXT_SCHEMA,
        org=org,
        stream=f"{org}/request/{admitted.attempt}",
        occurred_at=traffic.now,
        actor="key_1",
        data=completed,
    )
    return traffic.log.append(partition, encode(event))


@contextmanager
def newer_release() -> Iterator[None]:
    """This process knows the later schema."""

    def decode(envelope: StoredEnvelope) -> object:
        return decode_event(structs.replace(envelope, schema=1) if envelope.schema == NEXT_SCHEMA else envelope)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "decode_event", decode)
        yield


@asynccontextmanager
async def watched(made: House) -> AsyncIterator[Seen]:
    """Compares all the time: no offset that is committed to Kafka is ahead of any view."""
    seen, done = Seen(), asyncio.Event()
    watching = asyncio.create_task(_watch(made, seen, done))
    try:
        yield seen
    finally:
        done.set()
        await watching


async def _watch(made: House, seen: Seen, done: asyncio.Event) -> None:
    while not done.is_set():
        try:
            await asyncio.to_thread(compare, made, seen)
        except Unavailable:
            await asyncio.sleep(0.1)  # a store is away: part of the attack
        await asyncio.sleep(0.02)


def compare(made: House, seen: Seen) -> None:
    """Kafka's offsets first: watermarks only grow. Raises `Unavailable`."""
    committed = made.committed()
    for name, store in made.stores.items():
        marks = made.marks(name)
        for (topic, partition), offset in committed.items():
            at = marks[partition].offset if partition in marks else 0
            if topic == store.topic and offset > at:
                seen.ahead.append(f"{name} {partition}: committed {offset}, in the view {at}")
    seen.lag = max(seen.lag, made.behind("balances"))
    seen.compared += 1


class Attack:
    """Facts are written in slices; between two of them something happens."""

    def __init__(self, made: House, traffic: Traffic, seed: int = 1) -> None:
        self.made, self.traffic = made, traffic
        self.random = random.Random(seed)
        self.working: list[Child] = []

    async def begin(self, workers: int) -> None:
        self.working += [await self.made.join() for _ in range(workers)]

    async def run(self, requests: int, happenings: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """About `requests` more in all."""
        share = requests // (len(happenings) + 1) + 1
        for happening in (*happenings, None):
            self.traffic.run(share)
            self.made.write(self.traffic.log)
            if happening is not None:
                await happening()

    async def kill(self) -> None:
        """SIGKILL to a worker; another one is started."""
        victim = self.working.pop(self.random.randrange(len(self.working)))
        await victim.kill()
        self.working.append(await self.made.join())

    async def join(self) -> None:
        """One more; if there are many then, one is told to end, and does so in order."""
        self.working.append(await self.made.join())
        if len(self.working) > 3:
            assert await self.working.pop(0).stop() == 0

    async def postgres_outage(self) -> None:
        """Stopped, and facts come meanwhile."""
        await self._outage("postgres")

    async def clickhouse_outage(self) -> None:
        """See `postgres_outage`."""
        await self._outage("clickhouse")

    async def _outage(self, server: str) -> None:
        await asyncio.to_thread(self.made.stack.stop, server)
        self.traffic.run(40)
        self.made.write(self.traffic.log)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(self.made.stack.start, server)

    async def cut_connections(self) -> None:
        """The database ends every connection of the workers, wherever they are."""
        with psycopg.connect(self.made.environ["TOLLHOUSE_POSTGRES"], autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid != pg_backend_pid()"
            )

    async def recovered(self) -> float:
        """Seconds until every view has everything."""
        began = time.monotonic()
        await self.made.caught_up()
        return time.monotonic() - began

    @property
    def facts(self) -> int:
        return sum(self.made.logs[FACTS].ends())
