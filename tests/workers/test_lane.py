"""A lane: what follows is applied, what does not is read again from the watermark, and no gap ever comes into a view."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from threading import Event

import pytest

from domain.errors import Unavailable
from projections.engine import Engine, Policy
from projections.ports import FACTS, Batch, Mark, Outcome, Record, Sink
from streams.faust_consumer import Parcel
from streams.faust_lane import BATCH, HELD, Lane
from tests.factgen import Traffic
from tests.memory_views import MemoryParking, MemorySink
from tests.waiting import until

RECORDS = max(Traffic(1, orgs=("acme",)).run(20).log.records, key=len)
PARTITION = RECORDS[0].partition


class Versions:
    """A store of views in memory, that another process may switch."""

    name, topic = "view", FACTS

    def __init__(self, *sinks: MemorySink) -> None:
        self.sinks, self.version, self.down = list(sinks), 0, False

    def live(self) -> int:
        if self.down:
            raise Unavailable("the catalog is down")
        return self.version

    def open(self, version: int) -> Sink:
        return self.sinks[version]

    def create(self) -> int:
        raise NotImplementedError

    def switch(self, version: int) -> None:
        self.version = version

    def drop(self, version: int) -> None:
        raise NotImplementedError


class Read:
    """The consumer: what it was told to read again."""

    def __init__(self) -> None:
        self.turn = 0
        self.rewinds: list[Mapping[int, int]] = []
        self.end = 0
        self.meanwhile: list[Callable[[], object]] = []
        """What happens while it is told to read again, once each: the first before reading was moved, the next after it."""

    async def rewind(self, offsets: Mapping[int, int]) -> None:
        for happens in self.meanwhile[:1]:
            happens()
        self.turn += 1
        self.rewinds.append(dict(offsets))
        for happens in self.meanwhile[1:]:
            happens()
        self.meanwhile.clear()

    def ends(self) -> Mapping[int, int]:
        return {PARTITION: self.end}


class Bench:
    def __init__(self, *sinks: MemorySink) -> None:
        self.sink = sinks[0] if sinks else MemorySink()
        self.store, self.read = Versions(*(sinks or (self.sink,))), Read()
        self.lane = Lane(self.store, self._engine(), 0)  # type: ignore[arg-type]  # versions are not made here
        self.lane.begin(self.read)

    def _engine(self) -> Engine:
        return Engine("view", FACTS, self.sink, MemoryParking(), Policy.PARK_ORG, lambda: datetime.now(UTC))

    async def take(self, start: int, end: int, turn: int | None = None) -> bool:
        """A parcel of the records [start, end), and a flush: whether they are in the view."""
        parcel = Parcel(self.read.turn if turn is None else turn, RECORDS[start:end])
        return self.lane.holds(parcel) and await self.lane.flush()

    @property
    def offsets(self) -> list[int]:
        return [offset for _, _, offset in self.sink.held]

    @asynccontextmanager
    async def tended(self) -> AsyncIterator[None]:
        tending = asyncio.create_task(self.lane.tend())
        yield
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)


async def test_what_follows_is_applied_once() -> None:
    """Parcels in order, one that was there before, and one that overlaps."""
    bench = Bench()
    assert await bench.take(0, 4)
    assert await bench.take(4, 9)
    assert await bench.take(0, 3)
    assert await bench.take(7, 12)
    assert bench.offsets == list(range(12))
    assert bench.read.rewinds == []


async def test_a_gap_is_read_again_from_the_watermark_and_nothing_is_applied_meanwhile() -> None:
    """Also what would follow on the gap is dropped; then all comes in order."""
    bench = Bench()
    assert await bench.take(0, 4)
    assert not await bench.take(6, 8)
    assert not await bench.take(8, 10)
    assert bench.offsets == list(range(4))
    async with bench.tended():
        await until(lambda: bench.read.rewinds == [{PARTITION: 4}], "it reads again")
        assert await bench.take(4, 10)
    assert bench.offsets == list(range(10))


async def test_a_gap_in_what_was_read_before_the_last_seek_is_no_reason_to_seek() -> None:
    """What is missing comes by itself: seeking for it again would never end."""
    bench = Bench()
    bench.read.turn = 3
    assert not await bench.take(6, 8, turn=2)
    assert await bench.take(0, 8)
    async with bench.tended():
        await asyncio.sleep(0.05)
    assert bench.read.rewinds == []
    assert bench.offsets == list(range(8))


async def test_a_gap_within_what_is_held_is_seen_too() -> None:
    """Before anything was flushed."""
    bench = Bench()
    assert bench.lane.holds(Parcel(0, RECORDS[0:3]))
    assert not bench.lane.holds(Parcel(0, RECORDS[5:7]))
    assert await bench.lane.flush()
    assert bench.offsets == []


async def test_a_store_that_is_down_is_asked_again_and_everything_comes_again() -> None:
    """The lane says why it stands still, and takes nothing: no other projection waits for it."""
    bench = Bench()
    assert await bench.take(0, 4)
    bench.sink.down = True
    assert not await bench.take(4, 6)
    assert "store is down" in str(bench.lane.error)
    bench.sink.down = False
    assert not await bench.take(6, 8)
    async with bench.tended():
        await until(lambda: bench.read.rewinds == [{PARTITION: 4}], "it reads again")
        assert await bench.take(4, 8)
    assert bench.lane.error is None
    assert bench.offsets == list(range(8))


async def test_what_comes_as_soon_as_reading_was_moved_is_taken() -> None:
    """Before the lane is told that it was: nobody would bring it again, and the log may be silent from then on."""
    bench = Bench()
    assert await bench.take(0, 4)
    assert not await bench.take(6, 8)
    bench.read.meanwhile = [
        lambda: bench.lane.holds(Parcel(0, RECORDS[8:10])),
        lambda: bench.lane.holds(Parcel(1, RECORDS[4:10])),
    ]
    async with bench.tended():
        await until(lambda: not bench.read.meanwhile and not bench.lane.astray, "it reads again")
        assert await bench.lane.flush()
    assert bench.offsets == list(range(10))
    assert bench.read.rewinds == [{PARTITION: 4}]


async def test_what_another_projection_moved_meanwhile_is_read_again() -> None:
    """Its place is further on: what is missing there is a gap like any other."""
    bench = Bench()
    assert await bench.take(0, 4)
    assert not await bench.take(6, 8)

    def moved_by_another() -> None:
        bench.read.turn += 1
        assert not bench.lane.holds(Parcel(bench.read.turn, RECORDS[7:10]))

    bench.read.meanwhile = [lambda: None, moved_by_another]
    async with bench.tended():
        await until(lambda: bench.read.rewinds == [{PARTITION: 4}] * 2, "it reads again")
        assert await bench.take(4, 10)
    assert bench.offsets == list(range(10))


async def test_a_store_that_fails_while_reading_is_moved_is_asked_again() -> None:
    """What it let go comes again: the failure is not forgotten over the move."""
    bench = Bench()
    assert await bench.take(0, 4)
    assert not await bench.take(6, 8)
    bench.read.meanwhile = [lambda: None, lambda: bench.lane._let_go(Unavailable("its store is down"))]
    async with bench.tended():
        await until(lambda: bench.read.rewinds == [{PARTITION: 4}] * 2, "it reads again")
        assert await bench.take(4, 10)
    assert bench.offsets == list(range(10))


async def test_a_lane_that_is_astray_asks_its_store_for_nothing() -> None:
    """Each try may take as long as a connection's timeout, and the other projections would wait for it."""
    bench, tries = Bench(), 0

    def failing(_: Batch) -> Outcome:
        nonlocal tries
        tries += 1
        raise Unavailable("down")

    bench.sink.apply = failing  # type: ignore[method-assign,assignment]
    for _ in range(3):
        assert not await bench.take(0, 2)
    assert tries == 1


async def test_while_the_store_cannot_be_asked_nothing_is_read_again() -> None:
    """Reading again would be in vain, and cost the others."""
    bench = Bench()
    bench.sink.down = bench.store.down = True
    async with bench.tended():
        assert not await bench.take(0, 2)
        await asyncio.sleep(0.3)
        assert bench.read.rewinds == []
        assert bench.lane.error is not None
        bench.sink.down = bench.store.down = False
        await until(lambda: bench.read.rewinds == [{PARTITION: 0}], "it reads again")


async def test_another_version_that_is_behind_is_fed_from_where_it_is() -> None:
    """Another process switched the view: what the lane holds does not follow on the new one, and is not applied to it."""
    old, new = MemorySink(), MemorySink()
    bench = Bench(old, new)
    assert await bench.take(0, 8)
    new.at = {PARTITION: Mark(2, 0, 2)}
    bench.store.version = 1
    assert bench.lane.holds(Parcel(0, RECORDS[8:10]))
    async with bench.tended():
        await until(lambda: bench.read.rewinds == [{PARTITION: 2}], "it reads again")
        assert await bench.lane.flush()
        assert await bench.take(2, 10)
    assert [offset for _, _, offset in old.held] == list(range(8))
    assert [offset for _, _, offset in new.held] == list(range(2, 10))


@pytest.mark.parametrize(("moved", "applied", "expected"), [(6, True, [6, 7]), (9, True, []), (2, False, [])])
async def test_a_view_that_another_process_moved(moved: int, applied: bool, expected: list[int]) -> None:
    """Forwards: the rest is applied, or nothing is left to do. Backwards (the store was restored): nothing is applied."""
    bench = Bench()
    assert await bench.take(0, 4)
    bench.sink.held.clear()
    bench.sink.at = {PARTITION: Mark(moved, 0, moved)}
    assert await bench.take(4, 8) is applied
    assert bench.offsets == expected


async def test_a_view_that_is_moved_while_a_batch_is_applied() -> None:
    """Another worker still has the partition: whoever comes first applies, the other one only what is left."""
    bench = Bench()
    moving = iter([5])
    bench.sink.apply = _after(bench.sink, lambda: next(moving, None))  # type: ignore[method-assign,assignment]
    assert await bench.take(0, 8)
    assert bench.offsets == [5, 6, 7]


def _after(sink: MemorySink, moved: Callable[[], int | None]) -> Callable[[Batch], Outcome]:
    """`apply` of a sink that was just moved."""
    apply = MemorySink.apply

    def moved_first(batch: Batch) -> Outcome:
        at = moved()
        if at is not None:
            sink.at = {PARTITION: Mark(at, 0, at)}
        return apply(sink, batch)

    return moved_first


async def test_what_comes_while_a_batch_is_applied_is_held() -> None:
    """Nobody waits for the store; what came meanwhile is applied next, in order and without being read again."""
    bench, going = Bench(), Event()
    apply = bench.sink.apply
    bench.sink.apply = lambda batch: (going.wait(10), apply(batch))[1]  # type: ignore[method-assign]
    working = asyncio.create_task(bench.lane.work())
    for start in range(0, 12, 3):
        assert bench.lane.holds(Parcel(0, RECORDS[start : start + 3]))
        await asyncio.wait_for(bench.lane.room(), 10)
    assert bench.offsets == []
    going.set()
    await until(lambda: bench.offsets == list(range(12)), "all of it")
    working.cancel()
    assert bench.read.rewinds == []


async def test_what_is_held_while_a_batch_fails_is_let_go_with_it() -> None:
    """It would leave a gap: all comes again."""
    bench, going = Bench(), Event()

    def failing(_: Batch) -> Outcome:
        going.wait(10)
        raise Unavailable("down")

    apply, bench.sink.apply = bench.sink.apply, failing  # type: ignore[method-assign,assignment]
    working = asyncio.create_task(bench.lane.work())
    assert bench.lane.holds(Parcel(0, RECORDS[0:3]))
    await asyncio.sleep(0)
    assert bench.lane.holds(Parcel(0, RECORDS[3:6]))
    going.set()
    await until(lambda: bench.lane.astray, "it went astray")
    bench.sink.apply = apply  # type: ignore[method-assign]
    async with bench.tended():
        await until(lambda: bench.read.rewinds == [{PARTITION: 0}], "it reads again")
        assert bench.lane.holds(Parcel(1, RECORDS[0:9]))
        await until(lambda: bench.offsets == list(range(9)), "all of it")
    working.cancel()


async def test_a_batch_is_not_without_bound_and_neither_is_what_is_held() -> None:
    """A flush applies a batch; whoever brings more than a lane may hold waits until there is room."""
    bench = Bench()
    many = [Record(PARTITION, offset, b"{}") for offset in range(HELD)]
    assert bench.lane.holds(Parcel(0, many[:-1]))
    await asyncio.wait_for(bench.lane.room(), 10)
    assert bench.lane.holds(Parcel(0, many[-1:]))
    waiting = asyncio.create_task(bench.lane.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await bench.lane.flush()
    await asyncio.wait_for(waiting, 10)
    assert bench.lane.applied == BATCH


async def test_lag_and_progress_are_told() -> None:
    """Lag is what the log has beyond the view."""
    bench = Bench()
    bench.read.end = 10
    assert bench.lane.lag() == 10
    before = bench.lane.moved_at
    assert await bench.take(0, 8)
    assert (bench.lane.lag(), bench.lane.applied) == (2, 8)
    assert bench.lane.moved_at > before


async def test_a_store_that_does_not_tell_its_watermark_in_time_is_waited_for() -> None:
    """Partitions were assigned meanwhile, and reading began somewhere: it begins again where the view is."""
    bench, gate = Bench(), Event()
    bench.sink.at = {PARTITION: Mark(3, 0, 3)}
    bench.store.live = lambda: 0 if gate.wait(10) else 1  # type: ignore[method-assign]
    assert await bench.lane.position(0.01) is None
    async with bench.tended():
        assert bench.read.rewinds == []
        gate.set()
        await until(lambda: bench.read.rewinds == [{PARTITION: 3}], "it reads again")


async def test_nothing_is_applied_once_it_is_closed() -> None:
    """What is under way is awaited first."""
    bench = Bench()
    assert await bench.take(0, 4)
    await bench.lane.close()
    assert not await bench.take(4, 6)
    assert await bench.lane.position(1.0) is None
    assert bench.offsets == list(range(4))


async def test_a_bug_is_raised() -> None:
    """It ends the process; it is not a store that is away."""
    bench = Bench()

    def broken(_: Batch) -> Outcome:
        raise ValueError("a bug")

    bench.sink.apply = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(ValueError, match="a bug"):
        await bench.take(0, 4)
