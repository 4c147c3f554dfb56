"""Ports in memory, for unit tests: each is as small as its port, and leaves to the test what only the outside can decide."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from commands.ports import LedgerEntry, Overdue, Overrun, PartitionBalances
from domain.envelope import Envelope, decode, encode
from domain.errors import LogUnavailable
from domain.facts import RequestAdmitted, RequestCompleted, RequestUnconfirmed
from domain.fold import Books, State
from domain.registry import decode_event
from projections.balances import placed
from tests.factgen import MemoryLog


class FlightLog:
    """`FactLog` of one process. What was appended is in flight, in order, until the test says what becomes of it."""

    def __init__(self, topic: MemoryLog) -> None:
        self.topic = topic
        self.flight: deque[tuple[int, bytes, asyncio.Future[int]]] = deque()

    def append(self, partition: int, body: bytes) -> "asyncio.Future[int]":
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.flight.append((partition, body, future))
        return future

    def arrive(self, times: int = 1) -> None:
        """The oldest record is in the log, `times` times, and acknowledged."""
        partition, body, future = self.flight.popleft()
        offset = [self.topic.append(partition, body) for _ in range(times)][-1]
        if not future.done():
            future.set_result(offset)

    def arrive_unacknowledged(self) -> None:
        """The oldest record is in the log, but its writer is told that it may not be."""
        partition, body, future = self.flight.popleft()
        self.topic.append(partition, body)
        _fail(future)

    def fail(self) -> tuple[int, bytes]:
        """The writer is told that the oldest record may not be in the log; it is not, so far."""
        partition, body, future = self.flight.popleft()
        _fail(future)
        return partition, body


class InstantLog:
    """`FactLog` that takes everything at once, and nothing between `break_off` and `come_back`."""

    def __init__(self, topic: MemoryLog) -> None:
        self.topic, self._down = topic, False

    def break_off(self) -> None:
        self._down = True

    def come_back(self) -> None:
        self._down = False

    def append(self, partition: int, body: bytes) -> "asyncio.Future[int]":
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._down:
            _fail(future)
        else:
            future.set_result(self.topic.append(partition, body))
        return future


def _fail(future: "asyncio.Future[int]") -> None:
    if not future.done():
        future.set_exception(LogUnavailable("the log did not answer"))
        future.exception()  # a writer that is gone hears nothing; that is no lost error


class MemoryJournal:
    """`Journal` of streams."""

    def __init__(self) -> None:
        self.streams: dict[str, list[bytes]] = {}
        self.position = 0

    def load(self, stream: str) -> Sequence[bytes]:
        return self.streams.get(stream, [])

    async def appended(
        self, events: Sequence[Envelope], expected: Mapping[str, int], ledger: tuple[str, str, LedgerEntry] | None
    ) -> int:
        assert all(len(self.load(stream)) == version for stream, version in expected.items())
        for event in events:
            self.streams.setdefault(event.stream, []).append(encode(event))
            self.position += 1
        return self.position

    def answered(self, actor: str, key: str) -> LedgerEntry | None:
        return None


@dataclass
class LogBalances:
    """`Balances` folded from the log itself, as of an offset that the test may hold back."""

    topic: MemoryLog
    watermark: Callable[[int], int] | None = None
    _facts: dict[bytes, Any] = field(default_factory=dict)

    def watermarks(self) -> Mapping[int, int]:
        return {partition: self._end(partition) for partition, kept in enumerate(self.topic.records) if kept}

    def partition(self, partition: int) -> PartitionBalances:
        books, admissions = self._fold(partition)
        opened = {a: body for a, body in admissions.items() if books.attempts[a].state is State.OPEN}
        return PartitionBalances(self._end(partition), books, opened)

    def overdue(self, now: Any) -> Sequence[Overdue]:
        return [overdue for overdue in self._in(State.OPEN) if self.fact(overdue.body).deadline < now]

    def unconfirmed(self, org: str | None = None) -> Sequence[Overdue]:
        return [waiting for waiting in self._in(State.UNCONFIRMED) if org in (None, self.fact(waiting.body).org)]

    def awaiting(self, attempts: Sequence[str]) -> Sequence[Overdue]:
        return [waiting for waiting in self._in(State.UNCONFIRMED) if waiting.attempt in attempts]

    def overruns(self) -> Sequence[Overrun]:
        found = {}
        for partition in range(self.topic.partitions):
            for record in self.topic.records[partition][: self._end(partition)]:
                fact = self.fact(record.value)
                if isinstance(fact, RequestCompleted) and fact.overrun:
                    found[partition, fact.model] = Overrun(fact.model, fact.request, fact.attempt, fact.cost, fact.hold)
        return list(found.values())

    def _in(self, state: State) -> Sequence[Overdue]:
        found = []
        for partition in range(self.topic.partitions):
            books, admissions = self._fold(partition)
            found += [Overdue(partition, a, body) for a, body in admissions.items() if books.attempts[a].state is state]
        return found

    def _end(self, partition: int) -> int:
        return len(self.topic.records[partition]) if self.watermark is None else self.watermark(partition)

    def _fold(self, partition: int) -> tuple[Books, dict[str, bytes]]:
        books, admissions = Books(), {}
        for record in self.topic.records[partition][: self._end(partition)]:
            fact = self.fact(record.value)
            books.apply(fact)
            if isinstance(fact, RequestAdmitted):
                admissions[fact.attempt] = record.value
            elif isinstance(fact, RequestUnconfirmed) and fact.backend is not None and fact.attempt in admissions:
                admissions[fact.attempt] = placed(admissions[fact.attempt], fact.backend)
        return books, admissions

    def fact(self, body: bytes) -> Any:
        """A stored fact, decoded once."""
        if body not in self._facts:
            self._facts[body] = decode_event(decode(body))
        return self._facts[body]
