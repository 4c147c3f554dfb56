"""Following a control topic that is elsewhere: what is taken in, and how current the view may call itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio

from domain.errors import LogUnavailable
from domain.organization import OrganizationRenamed
from projections.keyring import Keyring
from projections.ports import Record
from streams import control_follower as module
from streams.control_follower import ControlFollower
from tests.controlgen import ControlTraffic
from tests.waiting import until


class Slow:
    """A topic whose answers can be late, missing, or overtaken by what comes meanwhile."""

    topic, partitions = "control", 1

    def __init__(self, traffic: ControlTraffic) -> None:
        self.log = traffic.log
        self.after_end: Callable[[], None] = lambda: None
        self.down = self.closed = False

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        return self.log.read(partition, offset, limit)

    def ends(self) -> Sequence[int]:
        if self.down:
            raise LogUnavailable("the topic does not answer")
        ends = self.log.ends()
        self.after_end()
        return ends

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        return self.log.wait(seen, timeout)

    def close(self) -> None:
        self.closed = True


class House:
    def __init__(self) -> None:
        self.traffic, self.keyring = ControlTraffic(), Keyring()
        self.topic = Slow(self.traffic)
        self.follower = ControlFollower(self.keyring, self.topic)


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    await made.follower.close()
    assert made.topic.closed


async def test_everything_before_the_end_is_taken_in(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, in order, without what does not continue the chain."""
    monkeypatch.setattr(module, "_READ", 7)
    house.traffic.run(100)
    await house.follower.step()
    assert house.keyring.offset == house.traffic.log.ends()[0]
    assert house.keyring.position == house.traffic.position


async def test_the_view_is_as_of_before_the_question(house: House) -> None:
    """What comes into the topic after its end was told is not in the view: it does not hold what was there then."""
    came: list[float] = []

    def late() -> None:
        time.sleep(0.02)
        came.append(time.monotonic())
        house.traffic.emit("acme/org/acme", OrganizationRenamed(name="late", before="x"))

    before = time.monotonic()
    house.topic.after_end = late
    await house.follower.step()
    assert house.keyring.position == 0
    assert house.keyring.holds(before)
    assert not house.keyring.holds(came[0])


async def test_a_view_with_records_to_read_is_not_proved_before_they_are_in(house: House) -> None:
    """A topic that fails half way proves nothing."""
    house.traffic.run(20)
    before = time.monotonic()
    read = house.topic.read
    house.topic.read = lambda *_: _fail()  # type: ignore[method-assign]
    with pytest.raises(LogUnavailable):
        await house.follower.step()
    assert not house.keyring.holds(before - 1000)
    house.topic.read = read  # type: ignore[method-assign]
    await house.follower.step()
    assert house.keyring.holds(before)


def _fail() -> Sequence[Record]:
    raise LogUnavailable("the topic does not answer")


async def test_a_topic_that_does_not_answer_lets_the_view_age(house: House) -> None:
    """Nothing is proved, and the failure is told."""
    await house.follower.step()
    house.topic.down = True
    asked = time.monotonic()
    with pytest.raises(LogUnavailable):
        await house.follower.step()
    assert not house.keyring.holds(asked)


async def test_whoever_waits_for_a_position_is_told_when_it_is_in(house: House) -> None:
    """Not before, and at once where it is in already."""
    first = house.traffic.emit("acme/org/acme", OrganizationRenamed(name="a", before="x"))
    waiting = [asyncio.create_task(house.follower.reached(position)) for position in (first, first + 1)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    await house.follower.step()
    await until(waiting[0].done, "the first position")
    assert not waiting[1].done()
    await house.follower.reached(first)
    while house.traffic.position <= first:
        house.traffic.emit("acme/org/acme", OrganizationRenamed(name="b", before="a"))
    await house.follower.step()
    await waiting[1]


async def test_what_this_process_put_there_is_taken_in_without_reading(house: House) -> None:
    """At once, and whoever waits for it is told; what is read of it later changes nothing."""
    house.traffic.run(20)
    await house.follower.step()
    start = house.keyring.offset
    position = house.traffic.emit("acme/org/acme", OrganizationRenamed(name="a", before="x"))
    reached = asyncio.create_task(house.follower.reached(position))
    await asyncio.sleep(0)
    house.follower.landed(house.topic.read(0, start, 100))
    assert (house.keyring.offset, house.keyring.position) == (start + 1, position)
    await reached
    late, house.topic.read = house.topic.read, lambda *_: late(0, start, 100)  # type: ignore[method-assign]
    house.traffic.emit("acme/org/acme", OrganizationRenamed(name="b", before="a"))
    while house.keyring.position < house.traffic.position:
        await house.follower.step()
    assert house.keyring.version_of("org", "acme", "acme")[0] == house.traffic.versions["acme/org/acme"]


@pytest.mark.parametrize("lost", [slice(0, 1), slice(1, 2)])
async def test_what_is_behind_something_unread_is_read(house: House, lost: slice) -> None:
    """Another leader's records may be before what this process put there, or between: nothing is taken in before them."""
    for name in "abc":
        house.traffic.emit("acme/org/acme", OrganizationRenamed(name=name, before="x"))
    records = list(house.topic.read(0, 0, 100))
    del records[lost]
    house.follower.landed(records)
    assert house.keyring.position == 0
    await house.follower.step()
    assert house.keyring.position == house.traffic.position


async def test_a_view_that_is_fed_is_proved_all_the_same(house: House) -> None:
    """By the topic's own end: another process's records, which nobody fed, are in it then."""
    house.traffic.emit("acme/org/acme", OrganizationRenamed(name="a", before="x"))
    house.follower.landed(house.topic.read(0, 0, 100))
    house.traffic.emit("acme/org/acme", OrganizationRenamed(name="b", before="a"))
    before = time.monotonic()
    await house.follower.step()
    assert house.keyring.position == house.traffic.position
    assert house.keyring.holds(before)
