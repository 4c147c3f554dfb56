"""The relay: everything committed arrives once in the chain, whatever fails on the way."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from commands.ports import Stored
from commands.relay import Relay
from domain.errors import LogUnavailable, Unavailable


@dataclass
class Journal:
    """A feed with holes in its positions; `failures` are raised before anything is answered."""

    committed: list[Stored] = field(default_factory=list)
    failures: int = 0

    def after(self, position: int, limit: int) -> Sequence[Stored]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("database is locked")
        return [event for event in self.committed if event.position > position][:limit]


@dataclass
class Topic:
    """A topic that fails as told: `cuts` are numbers of records written before a forward fails."""

    records: list[tuple[int, Stored]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    down: bool = False

    async def tail(self) -> int:
        if self.down:
            raise LogUnavailable("down")
        return self.accepted()[-1].position if self.records else 0

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        cut = self.cuts.pop(0) if self.cuts else len(events)
        for event in events[:cut]:
            self.records.append((previous, event))
            previous = event.position
        if cut < len(events) or self.down:
            raise LogUnavailable("the acknowledgement was lost")

    def accepted(self) -> list[Stored]:
        """What a reader that follows the chain accepts."""
        chain: list[Stored] = []
        for previous, event in self.records:
            if previous == (chain[-1].position if chain else 0):
                chain.append(event)
        return chain


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[None]:
    task = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


async def test_everything_committed_is_forwarded_in_order() -> None:
    """Holes are nothing to wait for; later commits follow."""
    journal, topic = Journal([Stored(position, b"") for position in (2, 3, 7)]), Topic()
    relay = Relay(journal, topic, poll=0.01)
    async with running(relay):
        await relay.wait_for(7)
        journal.committed.append(Stored(9, b""))
        await relay.wait_for(9)
    assert topic.records == [(0, Stored(2, b"")), (2, Stored(3, b"")), (3, Stored(7, b"")), (7, Stored(9, b""))]


async def test_nobody_has_to_wake_it() -> None:
    """What another process committed is found by looking."""
    journal, topic = Journal(), Topic()
    async with running(Relay(journal, topic, poll=0.001)):
        journal.committed.append(Stored(1, b""))
        await eventually(lambda: len(topic.records) == 1)


@pytest.mark.parametrize("cuts", [[0], [1], [2, 0, 1]])
async def test_after_a_failed_forward_it_goes_on_from_the_tail(cuts: list[int]) -> None:
    """Part of a batch may have arrived: nothing is missing from the chain, nothing is in it twice."""
    journal, topic = Journal([Stored(n, b"") for n in range(1, 6)]), Topic(cuts=cuts)
    relay = Relay(journal, topic, poll=0.001)
    async with running(relay):
        await relay.wait_for(5)
    assert topic.accepted() == journal.committed
    assert len(topic.records) == 5


async def test_a_failing_journal_is_tried_again() -> None:
    """A locked database ends nothing."""
    journal, topic = Journal([Stored(1, b"")], failures=2), Topic()
    relay = Relay(journal, topic, poll=0.001)
    async with running(relay):
        await relay.wait_for(1)


async def test_waiting_is_bounded() -> None:
    """While the topic is down commands are told so; once it is back, what was committed arrives."""
    journal, topic = Journal([Stored(1, b"")]), Topic(down=True)
    relay = Relay(journal, topic, poll=0.001, patience=0.01)
    async with running(relay):
        with pytest.raises(LogUnavailable):
            await relay.wait_for(1)
        topic.down = False
        await eventually(lambda: relay.position == 1)
        await relay.wait_for(1)


async def test_a_second_leader_does_no_harm() -> None:
    """Readers ignore what does not continue their chain."""
    journal, topic = Journal([Stored(n, b"") for n in range(1, 20)]), Topic()
    first, second = Relay(journal, topic, poll=0.001), Relay(journal, topic, poll=0.001)
    async with running(first), running(second):
        await first.wait_for(19)
        await second.wait_for(19)
    assert topic.accepted() == journal.committed
