"""The SQLite log does what every log must, and lives through locks, kills and readers in other processes."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from domain.errors import LogUnavailable
from infra.adapters import sqlite_log
from infra.adapters.sqlite_log import SqliteLog, SqliteLogReader
from projections.ports import CONTROL, FACTS, LogReader
from tests import log_child
from tests.contract.log_contract import LogContract, WholeLog, chained, everything
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


class TestSqliteLog(LogContract):
    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "log.db"

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[WholeLog]:
        log = SqliteLog(self.path, "normal")
        try:
            yield log
        finally:
            await log.close()

    def reader(self, topic: str) -> LogReader:
        return SqliteLogReader(self.path, topic)

    async def test_everything_in_flight_shares_one_commit(self) -> None:
        """One row per partition for what was appended in one turn of the loop, whatever its number."""
        log = SqliteLog(self.path, "full")
        await asyncio.gather(*(log.append(number % 2, b"x") for number in range(100)))
        await log.close()
        assert self._rows() == [50, 50]

    async def test_commits_are_told_in_order_and_whole(self) -> None:
        """Who follows in process sees each record once, at its offset, after it was acknowledged to nobody else first."""
        heard: list[tuple[int, int, bytes]] = []

        def tail(partition: int, first: int, bodies: Sequence[bytes]) -> None:
            heard.extend((partition, first + number, body) for number, body in enumerate(bodies))

        log = SqliteLog(self.path, "normal")
        log.on_commit(tail)
        for _ in range(10):
            await asyncio.gather(*(log.append(number % 3, b"%d" % number) for number in range(7)))
        await log.forward(0, chained(1))
        assert (log.ends()[:4], log.control_end()) == ([30, 20, 20, 0], 1)
        await log.close()
        for partition in range(3):
            mine = [(offset, body) for p, offset, body in heard if p == partition]
            assert mine == [(record.offset, record.value) for record in self.read(FACTS, partition)]

    # -- other processes

    async def test_another_process_is_followed(self) -> None:
        """A reader here sees what a writer there commits, in order, and is woken by it."""
        async with self.writer():
            pass  # the file is there
        reader = SqliteLogReader(self.path, FACTS)
        with _writer_process(self.path, "normal", 0) as child:
            found: list[bytes] = []
            deadline = time.monotonic() + PATIENCE
            while len(found) < 200 and time.monotonic() < deadline:
                await asyncio.to_thread(reader.wait, list(reader.ends()), 0.5)
                found += [record.value for record in reader.read(1, len(found), 50)]
            child.kill()
        reader.close()
        numbers = [int(value.split()[0]) for value in found]
        assert len(numbers) >= 200
        assert sorted(numbers) == sorted(set(numbers))

    @pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.full)])
    def test_every_acknowledged_append_survives_sigkill(self, rounds: int) -> None:
        """A writer killed at any moment, again and again on the same file: each record it was told of is at its offset,
        offsets have no holes, nothing is there twice."""
        moments = random.Random(rounds)
        acknowledged: dict[tuple[int, int], int] = {}
        for number in range(rounds):
            with _writer_process(self.path, ("full", "normal")[number % 2], number * 1_000_000) as child:
                assert child.stdout is not None
                lines = [child.stdout.readline()]
                deadline = time.monotonic() + moments.random() * 0.15
                while time.monotonic() < deadline:
                    lines.append(child.stdout.readline())
                child.send_signal(signal.SIGKILL)
                lines += child.stdout.readlines()
            for partition, offset, fact in (map(int, line.split()) for line in lines if line.endswith(b"\n")):
                assert acknowledged.setdefault((partition, offset), fact) == fact
        assert len(acknowledged) > rounds
        reader = SqliteLogReader(self.path, FACTS)
        for partition in range(log_child.PARTITIONS):
            records = everything(reader, partition)
            assert [record.offset for record in records] == list(range(len(records)))
            numbers = [int(record.value.split()[0]) for record in records]
            assert [record.value for record in records] == [log_child.body(fact) for fact in numbers]
            assert len(set(numbers)) == len(numbers)
            for (p, offset), fact in acknowledged.items():
                assert p != partition or numbers[offset] == fact
        reader.close()

    # -- a log that cannot be written

    async def test_a_locked_file_is_unavailable_and_recovers_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each append in flight is told; the next one after the lock is gone gets the next offset, and no record is torn."""
        monkeypatch.setattr(sqlite_log, "_BUSY_SECONDS", 0.02)
        async with self.writer() as log:
            assert await log.append(0, b"before") == 0
            with self._locked():
                for _ in range(3):
                    failed = await asyncio.gather(*(log.append(0, b"during") for _ in range(5)), return_exceptions=True)
                    assert [type(error) for error in failed] == [LogUnavailable] * 5
                with pytest.raises(LogUnavailable):
                    await log.forward(0, chained(1, 2))
                assert [record.value for record in self.read(FACTS, 0)] == [b"before"]
            assert await log.append(0, b"after") == 1
            await log.forward(0, chained(1, 2))
            assert await log.tail() == 2
        assert [record.value for record in self.read(FACTS, 0)] == [b"before", b"after"]

    async def test_what_was_appended_while_the_log_failed_is_tried_once_it_is_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Appends that queue behind a failing commit are a commit of their own."""
        monkeypatch.setattr(sqlite_log, "_BUSY_SECONDS", 0.3)
        async with self.writer() as log:
            with self._locked():
                first = asyncio.ensure_future(log.append(0, b"first"))
                await asyncio.sleep(0)  # the commit is under way
                await asyncio.sleep(0)
                second = asyncio.ensure_future(log.append(0, b"second"))
                with pytest.raises(LogUnavailable):
                    await first
            assert await second == 0

    async def test_a_commit_that_failed_after_all_was_written_leaves_no_hole(self) -> None:
        """The writer cannot know whether a commit that reported an error is in the file; it looks, and goes on from there."""
        async with self.writer() as log:
            assert isinstance(log, SqliteLog)
            await log.append(0, b"before")
            real = log._connection

            class Deaf:
                """A connection whose insert is committed and then reported as failed."""

                def execute(self, sql: str, row: Sequence[int | bytes]) -> sqlite3.Cursor:
                    real.execute(sql, row)
                    raise sqlite3.OperationalError("disk I/O error")

                def close(self) -> None:
                    real.close()

            log._connection = Deaf()  # type: ignore[assignment]  # what the writer uses of a connection
            with pytest.raises(LogUnavailable):
                await log.append(0, b"perhaps")
            assert await log.append(0, b"after") == 2
        assert [record.value for record in self.read(FACTS, 0)] == [b"before", b"perhaps", b"after"]

    async def test_a_bug_in_the_writer_is_told_to_whoever_waits(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What nobody foresaw is in the process's log, fails the appends it met, and ends no later one."""
        async with self.writer() as log:
            with monkeypatch.context() as patched:
                patched.setattr(sqlite_log, "_INSERTS", [])
                with pytest.raises(LogUnavailable):
                    await log.append(0, b"x")
            assert "IndexError" in caplog.text
            assert await log.append(0, b"y") == 0

    async def test_nobody_has_to_wait_for_a_failed_append(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever gave up an append is not disturbed by its end, good or bad."""
        monkeypatch.setattr(sqlite_log, "_BUSY_SECONDS", 0.02)
        async with self.writer() as log:
            with self._locked():
                given_up = asyncio.ensure_future(log.append(0, b"x"))
                given_up.cancel()
                with pytest.raises(LogUnavailable):
                    await log.append(0, b"y")
            late = asyncio.ensure_future(log.append(0, b"z"))
            late.cancel()
            assert await log.append(0, b"w") == 1

    def test_a_reader_says_that_it_cannot_read(self) -> None:
        """A file that is no log, or none any more."""
        self.path.write_bytes(b"this is not a database, and never was" * 100)
        reader = SqliteLogReader(self.path, CONTROL)
        with pytest.raises(LogUnavailable):
            reader.ends()
        with pytest.raises(LogUnavailable):
            reader.read(0, 0, 1)
        reader.close()

    async def test_readers_go_on_while_the_writer_is_locked_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A log that cannot be written can still be read."""
        monkeypatch.setattr(sqlite_log, "_BUSY_SECONDS", 0.02)
        async with self.writer() as log:
            await log.append(0, b"x")
            with self._locked():
                assert [record.value for record in self.read(FACTS, 0)] == [b"x"]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Somebody else holds the file's write lock."""
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()

    def _rows(self) -> list[int]:
        connection = sqlite3.connect(self.path)
        try:
            return [count for (count,) in connection.execute("SELECT records FROM segments ORDER BY id")]
        finally:
            connection.close()


@contextmanager
def _writer_process(path: Path, synchronous: str, first: int) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "tests.log_child", str(path), synchronous, str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=dict(os.environ)) as child:
        try:
            yield child
        finally:
            child.kill()
