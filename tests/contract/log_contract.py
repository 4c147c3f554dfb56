"""What every log must do, written by one process and read by any. A suite says how writer and readers are made."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.ports import ControlLog, FactLog, Stored
from projections.ports import CONTROL, FACTS, LogReader, Record

few = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
)


class WholeLog(FactLog, ControlLog, Protocol):
    """Both sides of a log's writer."""


def chained(*positions: int) -> list[Stored]:
    return [Stored(position, b"event %d" % position) for position in positions]


def everything(reader: LogReader, partition: int) -> list[Record]:
    """Read piece by piece, as a consumer does."""
    found: list[Record] = []
    while records := reader.read(partition, len(found), 3):
        assert records[0].offset == len(found), "reading began somewhere else"
        found += records
    return found


class LogContract(ABC):
    """Inherit it as `Test…`."""

    @abstractmethod
    def writer(self) -> AbstractAsyncContextManager[WholeLog]:
        """The log's only writer. Entered again after it was left, it is a new process on the same log."""

    @abstractmethod
    def reader(self, topic: str) -> LogReader:
        """A reader of its own. The suite closes it."""

    def read(self, topic: str, partition: int) -> list[Record]:
        reader = self.reader(topic)
        try:
            return everything(reader, partition)
        finally:
            reader.close()

    async def test_order_of_calls_is_order_in_a_partition(self) -> None:
        """Offsets begin at 0 and have no holes, per partition, however many are in flight."""
        async with self.writer() as log:
            calls = [(number % 3, b"fact %d" % number) for number in range(300)]
            offsets = await asyncio.gather(*(log.append(partition, body) for partition, body in calls))
            later = await log.append(0, b"later")
        for partition in range(3):
            mine = [(offset, body) for (p, body), offset in zip(calls, offsets, strict=True) if p == partition]
            assert [offset for offset, _ in mine] == list(range(100))
            found = self.read(FACTS, partition)[:100]
            assert [(record.offset, record.value) for record in found] == mine
            assert all(record.partition == partition for record in found)
        assert later == 100
        assert self.read(FACTS, 3) == []

    async def test_what_is_acknowledged_is_there_for_every_reader(self) -> None:
        """At once, with nothing flushed or closed."""
        async with self.writer() as log:
            for number in range(5):
                offset = await log.append(2, b"fact %d" % number)
                assert self.read(FACTS, 2)[offset].value == b"fact %d" % number

    async def test_any_bytes_come_back_as_they_were(self) -> None:
        """Empty, binary, large."""
        bodies = [b"", bytes(range(256)), b"x" * 1_000_000, b"\n"]
        async with self.writer() as log:
            await asyncio.gather(*(log.append(1, body) for body in bodies))
        assert [record.value for record in self.read(FACTS, 1)] == bodies

    @few
    @given(commits=st.lists(st.integers(1, 6), max_size=6), start=st.integers(0, 40), limit=st.integers(1, 40))
    async def test_reading_begins_anywhere(self, commits: list[int], start: int, limit: int) -> None:
        """From any offset: what follows, in order, at least one and about `limit` of them; empty at the end and beyond."""
        async with self.writer() as log:
            base = await log.append(4, b"first")
            for size in commits:
                await asyncio.gather(*(log.append(4, b"%d" % number) for number in range(size)))
            reader = self.reader(FACTS)
            try:
                end = reader.ends()[4]
                assert end == base + 1 + sum(commits)
                found = reader.read(4, base + start, limit)
                assert [record.offset for record in found] == list(range(base + start, base + start + len(found)))
                assert bool(found) is (base + start < end)
                assert len(found) >= min(limit, end - base - start)
            finally:
                reader.close()

    async def test_the_end_of_each_partition_is_known(self) -> None:
        """Those without a record end at 0; waiting tells of what came since."""
        async with self.writer() as log:
            await asyncio.gather(*(log.append(p, b"x") for p in (0, 0, 5)))
            reader = self.reader(FACTS)
            try:
                ends = reader.ends()
                assert (ends[0], ends[1], ends[5], len(ends)) == (2, 0, 1, reader.partitions)
                assert not await asyncio.to_thread(reader.wait, ends, 0.02)
                waiting = asyncio.create_task(asyncio.to_thread(reader.wait, list(ends), 30.0))
                await log.append(1, b"x")
                assert await waiting
                assert reader.ends()[1] == 1
            finally:
                reader.close()

    async def test_a_new_process_goes_on_where_the_last_one_stopped(self) -> None:
        """Nothing lost, nothing overwritten, in both topics."""
        async with self.writer() as log:
            await asyncio.gather(*(log.append(0, b"%d" % number) for number in range(7)))
            await log.forward(0, chained(2, 5))
        async with self.writer() as log:
            assert await log.append(0, b"7") == 7
            assert await log.append(1, b"first") == 0
            assert await log.tail() == 5
            await log.forward(5, chained(6))
        assert [record.value for record in self.read(FACTS, 0)] == [b"%d" % number for number in range(8)]
        assert [record.position for record in self.read(CONTROL, 0)] == [2, 5, 6]

    async def test_control_records_are_chained(self) -> None:
        """Each carries its journal position and the one before, also where positions have holes."""
        async with self.writer() as log:
            assert await log.tail() == 0
            await log.forward(0, chained(1, 2, 7))
            assert await log.tail() == 7
            await log.forward(7, chained(8))
            await log.forward(8, [])
            assert await log.tail() == 8
        records = self.read(CONTROL, 0)
        assert [(r.offset, r.previous, r.position) for r in records] == [(0, 0, 1), (1, 1, 2), (2, 2, 7), (3, 7, 8)]
        assert [r.value for r in records] == [stored.body for stored in chained(1, 2, 7, 8)]

    async def test_what_is_forwarded_twice_is_there_twice(self) -> None:
        """A deposed leader's records are kept as they came: it is for readers to see that they do not continue the chain."""
        async with self.writer() as log:
            await log.forward(0, chained(1, 2))
            await log.forward(0, chained(1, 2))
            assert await log.tail() == 2
        assert [(r.previous, r.position) for r in self.read(CONTROL, 0)] == [(0, 1), (1, 2), (0, 1), (1, 2)]

    async def test_topics_have_nothing_to_do_with_each_other(self) -> None:
        """Control records are no facts."""
        async with self.writer() as log:
            await log.forward(0, chained(1))
            await log.append(0, b"fact")
        assert [record.value for record in self.read(CONTROL, 0)] == [b"event 1"]
        assert [record.value for record in self.read(FACTS, 0)] == [b"fact"]
        reader = self.reader(CONTROL)
        assert (reader.topic, reader.partitions, list(reader.ends())) == (CONTROL, 1, [1])
        reader.close()

    async def test_leaving_writes_what_is_in_flight(self) -> None:
        """Whoever appended and did not wait loses nothing by an orderly end."""
        async with self.writer() as log:
            appended: Sequence[asyncio.Future[int]] = [asyncio.ensure_future(log.append(0, b"x")) for _ in range(50)]
        assert await asyncio.gather(*appended) == list(range(50))
        assert len(self.read(FACTS, 0)) == 50
