"""The PostgreSQL journal against the contract of journals, and what it adds: groups, lost acknowledgements, many processes."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Event
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from commands.ports import Journal
from domain.envelope import encode
from domain.errors import Conflict, Unavailable, VersionConflict
from infra.adapters.postgres_journal import PostgresJournal
from tests.contract.test_journal import Clock, JournalContract, entry, event
from tests.postgres import PostgresServer
from tests.waiting import until


class TestPostgresJournal(JournalContract):
    @pytest.fixture
    def journal(self, postgres: PostgresServer) -> Iterator[PostgresJournal]:
        self.clock = Clock()
        with postgres.database() as self.url:
            journal = self.reopen()
            yield journal
            journal.close()

    def reopen(self) -> PostgresJournal:
        return PostgresJournal(self.url, b"s" * 32, self.clock)

    def stored(self, folder: Path) -> bytes:
        everything = "COPY (SELECT body, actor, key, fingerprint FROM commands) TO STDOUT BINARY"
        with psycopg.connect(self.url) as connection, connection.cursor().copy(everything) as rows:
            return b"".join(bytes(row) for row in rows)

    def test_it_is_a_journal(self, journal: PostgresJournal) -> None:
        """The port's shape, as the type checker sees it."""
        port: Journal = journal
        assert port.load("acme/org/acme") == []

    def test_64_commands_at_once_are_in_the_feed_in_the_order_of_their_commits(self, journal: PostgresJournal) -> None:
        """Two processes, 64 writers: a reader that polls meanwhile sees every position once, ascending, none late."""
        other, writers, each = self.reopen(), 64, 10
        start, done = Barrier(writers + 1), Event()
        seen: list[int] = []

        def follow() -> None:
            start.wait()
            while True:
                last = done.is_set()
                found = journal.after(seen[-1] if seen else 0, 50)
                seen.extend(stored.position for stored in found)
                if last and not found:
                    return

        def write(number: int) -> list[int]:
            start.wait()
            stream, into = f"acme/project/p{number}", journal if number % 2 else other
            return [
                into.append([event(stream, version)], {stream: version - 1}, ("admin", f"{number}.{version}", entry()))
                for version in range(1, each + 1)
            ]

        with ThreadPoolExecutor(writers + 1) as threads:
            reader = threads.submit(follow)
            answered = list(threads.map(write, range(writers)))
            done.set()
            reader.result()
        assert all(a < b for positions in answered for a, b in pairwise(positions))
        assert seen == sorted(position for positions in answered for position in positions)
        assert journal.after(0, 10_000) == other.after(0, 10_000)
        other.close()

    def test_a_command_that_is_refused_does_not_hold_up_its_group(self, journal: PostgresJournal) -> None:
        """Sixteen that arrive together: those in conflict are refused, the others are appended."""
        journal.append([event("acme/project/a", 1)], {"acme/project/a": 0}, ("admin", "taken", entry()))

        def attempt(number: int) -> str:
            stream = "acme/project/a" if number % 2 else f"acme/project/p{number}"
            try:
                journal.append(
                    [event(stream, 1)], {stream: 0}, ("admin", "taken" if number % 4 == 0 else f"{number}", entry())
                )
            except Conflict as error:
                return error.code
            return "appended"

        with held_back(journal, self.url, 16), ThreadPoolExecutor(16) as threads:
            outcomes = list(threads.map(attempt, range(16)))
        assert Counter(outcomes) == {"version_conflict": 8, "command_id_taken": 4, "appended": 4}
        assert outcomes[0] == "command_id_taken"

    def test_one_that_cannot_be_stored_fails_alone(self, journal: PostgresJournal) -> None:
        """PostgreSQL refuses a text with a zero byte; the others of its group are appended."""

        def attempt(number: int) -> str:
            stream = f"acme/project/p{number}" + ("\0" if number == 3 else "")
            try:
                journal.append([event(stream, 1)], {stream: 0}, None)
            except Unavailable as error:
                return error.code
            return "appended"

        with held_back(journal, self.url, 8), ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(attempt, range(8)))
        assert outcomes == ["appended"] * 3 + ["journal_unavailable"] + ["appended"] * 4

    @pytest.mark.parametrize("committed", [True, False])
    @pytest.mark.parametrize("key", ["k", None])
    def test_a_lost_acknowledgement_is_told_apart(
        self, journal: PostgresJournal, committed: bool, key: str | None
    ) -> None:
        """Whether or not the commit was done when the connection broke: the command is in once, and answers its position."""
        ledger = None if key is None else ("admin", key, entry(sealed=True, body=b"secret"))
        with broken_commit(committed):
            position = journal.append([event("acme/project/a", 1)], {"acme/project/a": 0}, ledger)
        assert [stored.position for stored in journal.after(0, 10)] == [position]
        with pytest.raises(VersionConflict):
            journal.append([event("acme/project/a", 1)], {"acme/project/a": 0}, None)
        if key is not None:
            known = journal.answered("admin", key)
            assert known is not None
            assert known.answer is not None
            assert known.answer.position == position

    def test_an_acknowledged_commit_is_never_in_doubt(self, journal: PostgresJournal) -> None:
        """The connection breaks right behind the acknowledgement: the command is in once, and answers its position."""
        stream, real = "acme/project/a", psycopg.Connection.execute

        def execute(self: psycopg.Connection[Any], query: Any, *args: Any, **options: Any) -> Any:
            if query == "COMMIT" and self.info.transaction_status is TransactionStatus.IDLE:
                self.close()
            return real(self, query, *args, **options)

        with patch.object(psycopg.Connection, "execute", execute):
            position = journal.append([event(stream, 1)], {stream: 0}, None)
        assert [stored.position for stored in journal.after(0, 10)] == [position]

    def test_an_equal_command_of_another_process_is_not_taken_for_ours(self, journal: PostgresJournal) -> None:
        """The commit was not done, and meanwhile another process appended the same: ours finds the key taken."""
        other = self.reopen()
        stream = "acme/project/a"

        def elsewhere() -> None:
            other.append([event(stream, 1, "B")], {stream: 0}, ("admin", "k", entry(body=b"first")))

        with broken_commit(False, then=elsewhere), pytest.raises(Conflict) as refused:
            journal.append([event(stream, 1)], {stream: 0}, ("admin", "k", entry(body=b"second")))
        assert refused.value.code == "command_id_taken"
        assert list(journal.load(stream)) == [encode(event(stream, 1, "B"))]
        other.close()

    def test_a_database_that_stands_still_is_not_waited_for_for_ever(self, journal: PostgresJournal) -> None:
        """Somebody holds the lock: the command gives up in its time, and was not carried out if it had not begun."""
        impatient = PostgresJournal(self.url, b"s" * 32, self.clock, patience=0.2)
        with psycopg.connect(self.url) as holder:
            holder.execute("LOCK TABLE events IN EXCLUSIVE MODE")
            with pytest.raises(Unavailable):
                impatient.append([event("acme/project/a", 1)], {"acme/project/a": 0}, None)
            with pytest.raises(Unavailable):
                impatient.append([event("acme/project/b", 1)], {"acme/project/b": 0}, None)
        impatient.close()
        assert list(journal.load("acme/project/b")) == []


_BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"


@contextmanager
def held_back(journal: PostgresJournal, url: str, commands: int) -> Iterator[None]:
    """Nothing commits until `commands` of them wait behind another one: those are one group then."""
    waiting = journal._recorder.commits.waiting  # the group is what is tested

    def hold() -> None:
        with psycopg.connect(url) as holder:
            holder.execute("LOCK TABLE events IN EXCLUSIVE MODE")
            threads.submit(journal.append, [], {}, None)
            asyncio.run(until(lambda: holder.execute(_BLOCKED).fetchone() == (1,), "the first one"))
            held.set()
            asyncio.run(until(lambda: len(waiting) == commands, "the group"))

    held = Event()
    with ThreadPoolExecutor(2) as threads:
        holding = threads.submit(hold)
        held.wait()
        yield
        holding.result()


@contextmanager
def broken_commit(committed: bool, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The connection breaks at the first commit, before or after the server did it; `then` happens before anything else."""
    real, broken = psycopg.Connection.execute, Event()

    def execute(self: psycopg.Connection[Any], query: Any, *args: Any, **options: Any) -> Any:
        if query != "COMMIT" or broken.is_set():
            return real(self, query, *args, **options)
        broken.set()
        if committed:
            real(self, query)
        self.close()
        then()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with patch.object(psycopg.Connection, "execute", execute):
        yield
    assert broken.is_set()
