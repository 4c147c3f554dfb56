"""A PostgreSQL that is killed under load, and two relays that share one lease."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from threading import Event
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import tuple_row

from commands.leading import Leader
from commands.ports import Lease, Stored
from commands.relay import Relay
from domain.envelope import decode
from domain.errors import Conflict, Unavailable, VersionConflict
from infra.adapters.postgres import Connections
from infra.adapters.postgres_journal import PostgresJournal
from infra.adapters.postgres_lease import PostgresLease
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_views import Catalog, RowStore
from tests.contract.sink_contract import engine
from tests.contract.test_journal import entry, event
from tests.factgen import Traffic, batches
from tests.postgres import PostgresServer, running_postgres
from tests.waiting import until

KILLS = 3


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server that only these tests use."""
    with running_postgres() as server:
        yield server


def test_a_server_that_was_restarted_is_used_at_once(mortal: PostgresServer) -> None:
    """Connections that it ended while nobody used them are not handed out: nothing fails that came after the restart."""
    with mortal.database() as url:
        connections = Connections(url, tuple_row)
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(connections.borrowed())
        mortal.kill()
        mortal.start()
        with ExitStack() as stack:
            for _ in range(3):
                connection = stack.enter_context(connections.borrowed())
                assert connection.execute("SELECT 1").fetchone() == (1,)
        connections.close()


def test_no_acknowledged_command_is_lost_or_doubled_when_the_server_is_killed(mortal: PostgresServer) -> None:
    """kill -9 of the server amid 16 writers, three times: each command is in the journal once, where its answer says."""
    with mortal.database() as url:
        journal, enough = PostgresJournal(url, b"s" * 32, now), Event()

        def write(number: int) -> dict[str, int]:
            answers: dict[str, int] = {}
            while not enough.is_set():
                answers |= one(journal, f"acme/project/p{number}.{len(answers)}")
            return answers

        with ThreadPoolExecutor(16) as threads:
            writers = [threads.submit(write, number) for number in range(16)]
            for _ in range(KILLS):
                end = _end(journal)
                asyncio.run(until(lambda end=end: _end(journal) > end + 40, "commands"))  # type: ignore[misc]
                mortal.kill()
                mortal.start()
            enough.set()
            answers = {stream: position for writer in writers for stream, position in writer.result().items()}
        found = {decode(stored.body).stream: stored.position for stored in journal.after(0, 1_000_000)}
        assert len(found) == len(journal.after(0, 1_000_000))
        assert found == answers
        journal.close()


def one(journal: PostgresJournal, stream: str) -> dict[str, int]:
    """Appends one command, repeated with its key as a client does until there is an answer."""
    while True:
        try:
            return {stream: journal.append([event(stream, 1)], {stream: 0}, ("admin", stream, entry()))}
        except Unavailable:
            continue
        except VersionConflict:
            raise
        except Conflict:
            answered = _answered(journal, stream)
            if answered is not None:
                return {stream: answered}


def _answered(journal: PostgresJournal, key: str) -> int | None:
    try:
        known = journal.answered("admin", key)
    except Unavailable:
        return None
    assert known is not None
    assert known.answer is not None
    return known.answer.position


def _end(journal: PostgresJournal) -> int:
    try:
        return journal.append([], {}, None)
    except Unavailable:
        return 0


def test_a_view_is_exact_though_the_server_is_killed_between_batches(mortal: PostgresServer) -> None:
    """Each batch is retried as a worker does: the view is as if nothing had happened."""
    log = Traffic(seed=3).run(300).log
    with mortal.database() as url:
        views = PostgresViews(url)
        store = RowStore(Catalog(views), BalancesView())
        sink, calm = store.open(store.live()), store.open(store.create())
        feeding, parts = engine(store, sink), list(batches(log.all(), 40))
        for number, batch in enumerate(parts):
            if number in (3, 9):
                mortal.kill()
                with pytest.raises(Unavailable):
                    feeding.feed(batch)
                mortal.start()
            _feed_at_last(lambda batch=batch: feeding.feed(batch))  # type: ignore[misc]
        engine(store, calm).feed(log.all())
        assert sink.fingerprint() == calm.fingerprint()
        views.close()


def _feed_at_last(feed: Callable[[], object]) -> None:
    for _ in range(10):
        try:
            feed()
        except Unavailable:
            continue
        return
    raise AssertionError("the database is up and does not answer")


class Topic:
    """A control topic in memory that keeps what was written, and by how many relays at once."""

    def __init__(self) -> None:
        self.records: list[tuple[int, Stored]] = []

    async def tail(self) -> int:
        await asyncio.sleep(0)
        return self.records[-1][1].position if self.records else 0

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        for stored in events:
            self.records.append((previous, stored))
            previous = stored.position
            await asyncio.sleep(0)

    def accepted(self) -> list[int]:
        """What a reader takes that accepts only what continues the chain."""
        chain = [0]
        for previous, stored in self.records:
            if previous == chain[-1]:
                chain.append(stored.position)
        return chain[1:]


@asynccontextmanager
async def leader(lease: PostgresLease, relay: Relay) -> AsyncIterator[Leader]:
    leading = Leader(lease, relay.run)
    task = asyncio.create_task(leading.run())
    try:
        yield leading
    finally:
        task.cancel()
        await asyncio.wait([task])
        lease.close()


async def test_of_two_relays_one_leads_and_the_other_takes_over(postgres: PostgresServer) -> None:
    """The first forwards alone; when it leaves, the second goes on at once where it was: each event once, in order."""
    with postgres.database() as url:
        journal, topic = PostgresJournal(url, b"s" * 32, now), Topic()
        first, second = (Relay(journal, topic, poll=0.01) for _ in range(2))
        async with leader(PostgresLease(url, "relay", "b", 1.0), second) as waiting:
            async with leader(PostgresLease(url, "relay", "a", 1.0), first) as leading:
                await until(lambda: leading.leading or waiting.leading, "a leader")
                for number in range(50):
                    await asyncio.to_thread(one, journal, f"acme/project/p{number}")
                    assert not (leading.leading and waiting.leading)
            await until(lambda: waiting.leading, "the other one")
            for number in range(50, 100):
                await asyncio.to_thread(one, journal, f"acme/project/p{number}")
            committed = [stored.position for stored in journal.after(0, 1_000)]
            await until(lambda: topic.accepted() == committed, "all events")
        assert [stored.position for _, stored in topic.records] == committed
        journal.close()


async def test_two_relays_that_both_believe_they_lead_do_no_harm(postgres: PostgresServer) -> None:
    """Without any lease: readers accept each event once, in order, whatever both wrote."""
    with postgres.database() as url:
        journal, topic = PostgresJournal(url, b"s" * 32, now), Topic()
        relays = [asyncio.create_task(Relay(journal, topic, poll=0.01).run()) for _ in range(2)]
        for number in range(50):
            await asyncio.to_thread(one, journal, f"acme/project/p{number}")
        committed = [stored.position for stored in journal.after(0, 1_000)]
        await until(lambda: topic.accepted() == committed, "all events")
        for relay in relays:
            relay.cancel()
        await asyncio.wait(relays)
        journal.close()


def test_a_lease_has_one_holder_until_it_expires(postgres: PostgresServer) -> None:
    """It is renewed by its holder, refused to others, and theirs once it is given up or over."""
    with postgres.database() as url:
        mine, yours = (PostgresLease(url, "relay", str(uuid4()), 60.0) for _ in range(2))
        other = PostgresLease(url, "keeper", "x", 60.0)
        port: Lease = mine
        assert port.hold()
        assert mine.hold()
        assert not yours.hold()
        assert other.hold()
        yours.release()
        assert not yours.hold()
        mine.release()
        assert yours.hold()
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE leases SET until = clock_timestamp() - interval '1 second'")
        assert mine.hold()
        assert not yours.hold()
        for lease in (mine, yours, other):
            lease.close()


def test_of_many_who_ask_at_once_one_gets_the_lease(postgres: PostgresServer) -> None:
    """Sixteen processes that start together: one holder."""
    with postgres.database() as url:
        leases = [PostgresLease(url, "relay", str(number), 60.0) for number in range(16)]
        with ThreadPoolExecutor(16) as threads:
            assert sum(threads.map(lambda lease: lease.hold(), leases)) == 1
        for lease in leases:
            lease.close()
