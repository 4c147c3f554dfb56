"""What every journal must do, and the SQLite journal doing it."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from commands.ports import Answer, Journal, LedgerEntry
from domain.envelope import Envelope, decode, encode
from domain.errors import Conflict, Unavailable, VersionConflict
from infra.adapters.recorded_journal import RecordedJournal
from infra.adapters.sqlite_journal import SQLiteJournal

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def event(stream: str, version: int, name: str = "A") -> Envelope:
    return Envelope(
        id=f"evt_{stream}_{version}",
        type="ProjectCreated",
        org="acme",
        stream=stream,
        version=version,
        occurred_at=NOON,
        actor="admin",
        data={"name": name},
    )


def entry(fingerprint: str = "f", body: bytes = b"{}", sealed: bool = False) -> LedgerEntry:
    return LedgerEntry(fingerprint, Answer(201, body, 0, '"1"', sealed))


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class JournalContract:
    """Inherit, and provide `journal` (empty), `reopen` (what a new process finds) and `stored`."""

    clock: Clock

    def reopen(self) -> RecordedJournal:
        raise NotImplementedError

    def stored(self, folder: Path) -> bytes:
        """All that the store holds; `folder` is the test's."""
        raise NotImplementedError

    @pytest.fixture
    def journal(self) -> Iterator[RecordedJournal]:
        raise NotImplementedError

    def test_a_stream_is_loaded_as_it_was_appended(self, journal: RecordedJournal) -> None:
        """The envelopes' own bytes, in order, and only those of the stream."""
        events = [event("acme/project/a", 1), event("acme/project/a", 2)]
        journal.append([*events, event("acme/project/b", 1)], {"acme/project/a": 0, "acme/project/b": 0}, None)
        assert list(journal.load("acme/project/a")) == [encode(e) for e in events]
        assert list(journal.load("acme/project/c")) == []

    def test_positions_grow_and_an_empty_append_answers_the_end(self, journal: RecordedJournal) -> None:
        """A command that changes nothing still knows up to where the journal goes."""
        assert journal.append([], {}, None) == 0
        first = journal.append([event("acme/project/a", 1)], {"acme/project/a": 0}, None)
        second = journal.append([event("acme/project/b", 1)], {"acme/project/b": 0}, None)
        assert 0 < first < second == journal.append([], {}, None)

    @pytest.mark.parametrize("expected", [1, 3])
    def test_an_append_at_another_version_is_refused(self, journal: RecordedJournal, expected: int) -> None:
        """Somebody else was first: nothing is appended."""
        journal.append([event("acme/project/a", 1), event("acme/project/a", 2)], {"acme/project/a": 0}, None)
        with pytest.raises(VersionConflict):
            journal.append([event("acme/project/a", expected + 1)], {"acme/project/a": expected}, None)
        assert len(journal.load("acme/project/a")) == 2

    def test_a_stream_that_is_only_looked_at_is_checked_too(self, journal: RecordedJournal) -> None:
        """A decision that rests on another stream fails if that one moved meanwhile."""
        journal.append([event("acme/project/a", 1)], {"acme/project/a": 0}, None)
        with pytest.raises(VersionConflict):
            journal.append([event("acme/key/k", 1)], {"acme/key/k": 0, "acme/project/a": 0}, None)
        assert list(journal.load("acme/key/k")) == []

    def test_all_or_nothing_over_streams_and_ledger(self, journal: RecordedJournal) -> None:
        """One stream in conflict keeps back the other's events and the ledger entry."""
        journal.append([event("acme/project/a", 1)], {"acme/project/a": 0}, None)
        with pytest.raises(VersionConflict):
            journal.append(
                [event("acme/project/b", 1), event("acme/project/a", 1)],
                {"acme/project/b": 0, "acme/project/a": 0},
                ("admin", "k", entry()),
            )
        assert list(journal.load("acme/project/b")) == []
        assert journal.answered("admin", "k") is None

    def test_the_answer_is_kept_with_the_events(self, journal: RecordedJournal) -> None:
        """The crash between append and answer: a new process repeats the same bytes and appends nothing."""
        stream = "acme/project/a"
        position = journal.append([event(stream, 1)], {stream: 0}, ("admin", "k", entry(body=b'{"id":"a"}')))
        again = self.reopen()
        found = again.answered("admin", "k")
        assert found == LedgerEntry("f", Answer(201, b'{"id":"a"}', position, '"1"', False))
        with pytest.raises(Conflict) as refused:
            again.append([event(stream, 2)], {stream: 1}, ("admin", "k", entry()))
        assert refused.value.code == "command_id_taken"
        assert len(again.load(stream)) == 1
        again.close()

    def test_keys_belong_to_their_actor(self, journal: RecordedJournal) -> None:
        """Two actors may choose the same key."""
        journal.append([], {}, ("admin", "k", entry()))
        assert journal.answered("other", "k") is None
        journal.append([], {}, ("other", "k", entry()))

    def test_of_twenty_equal_commands_at_once_one_is_applied(self, journal: RecordedJournal) -> None:
        """The others learn that the key is taken, not that the version moved."""

        def attempt(_: int) -> str:
            try:
                journal.append([event("acme/project/a", 1)], {"acme/project/a": 0}, ("admin", "k", entry()))
            except Conflict as error:
                return error.code
            return "applied"

        with ThreadPoolExecutor(20) as threads:
            outcomes = list(threads.map(attempt, range(20)))
        assert sorted(outcomes) == ["applied"] + ["command_id_taken"] * 19
        assert len(journal.load("acme/project/a")) == 1

    def test_a_secret_is_kept_sealed_for_24_hours(self, journal: RecordedJournal, tmp_path: Path) -> None:
        """Repeatable for a day, never in clear on disk, then gone but for the fact that it was answered."""
        journal.append([], {}, ("admin", "k", entry(body=b"th_sk_secret", sealed=True)))
        assert b"th_sk_secret" not in self.stored(tmp_path)
        kept = journal.answered("admin", "k")
        assert kept is not None
        assert kept.answer is not None
        assert kept.answer.body == b"th_sk_secret"
        self.clock.now += timedelta(hours=24, seconds=1)
        assert journal.answered("admin", "k") == LedgerEntry("f", None)
        again = self.reopen()
        assert again.answered("admin", "k") == LedgerEntry("f", None)
        again.close()

    async def test_the_feed_follows_commit_order_while_many_write(self, journal: RecordedJournal) -> None:
        """A reader that always goes on from the last position it saw misses nothing and sees each stream in order."""
        writers, each = 8, 25

        def write(number: int) -> None:
            for version in range(1, each + 1):
                stream = f"acme/project/p{number}"
                journal.append([event(stream, version)], {stream: version - 1}, None)

        seen: list[tuple[str, int]] = []
        done = asyncio.gather(*(asyncio.to_thread(write, number) for number in range(writers)))
        position, deadline = 0, time.monotonic() + 30
        while len(seen) < writers * each and time.monotonic() < deadline:
            for stored in await asyncio.to_thread(journal.after, position, 7):
                assert stored.position > position
                position = stored.position
                envelope = decode(stored.body)
                seen.append((envelope.stream, envelope.version))
        await done
        for number in range(writers):
            stream = f"acme/project/p{number}"
            assert [version for name, version in seen if name == stream] == list(range(1, each + 1))

    def test_everything_is_there_after_reopening(self, journal: RecordedJournal) -> None:
        """Positions go on where they were."""
        first = journal.append([event("acme/project/a", 1)], {"acme/project/a": 0}, None)
        again = self.reopen()
        assert [stored.position for stored in again.after(0, 10)] == [first]
        assert again.append([event("acme/project/a", 2)], {"acme/project/a": 1}, None) > first
        again.close()


class TestSQLiteJournal(JournalContract):
    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[SQLiteJournal]:
        self.path, self.clock = tmp_path / "journal.db", Clock()
        journal = self.reopen()
        yield journal
        journal.close()

    def reopen(self) -> SQLiteJournal:
        return SQLiteJournal(self.path, b"s" * 32, self.clock, "normal")

    def stored(self, folder: Path) -> bytes:
        return b"".join(file.read_bytes() for file in folder.iterdir())

    def test_it_is_a_journal(self, journal: SQLiteJournal) -> None:
        """The port's shape, as the type checker sees it."""
        port: Journal = journal
        assert port.load("acme/org/acme") == []

    async def test_a_closed_journal_refuses_and_closing_waits(self, journal: SQLiteJournal) -> None:
        """Readers in other threads end or are refused; none finds the file closed under it."""

        def read_for_ever() -> None:
            while True:
                journal.after(0, 10)

        def read() -> None:
            with pytest.raises(Unavailable):
                read_for_ever()

        readers = asyncio.gather(*(asyncio.to_thread(read) for _ in range(4)))
        await asyncio.sleep(0)
        await asyncio.to_thread(journal.close)
        await readers

    def test_another_secret_opens_nothing(self, journal: SQLiteJournal) -> None:
        """A folder whose secret was lost says so instead of answering garbage."""
        journal.append([], {}, ("admin", "k", entry(body=b"x", sealed=True)))
        other = SQLiteJournal(self.path, b"t" * 32, self.clock)
        with pytest.raises(Exception, match="TOLLHOUSE_SECRET"):
            other.answered("admin", "k")
        other.close()
