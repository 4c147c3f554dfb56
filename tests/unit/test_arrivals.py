"""Waiting for a view: told once it has what was named, asked once for all who wait, and left alone when nobody does."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest

from api.read.arrivals import Arrivals
from domain.errors import Unavailable
from projections.ports import CONTROL, FACTS, Mark
from projections.reads.freshness import Freshness, Position
from tests.memory_views import MemoryParking
from tests.waiting import until

LONG = 30.0


class View:
    """A view of facts or of control events that says what it is told to."""

    def __init__(self, name: str, topic: str) -> None:
        self.name, self.topic = name, topic
        self.at: Mapping[int, Mark] = {}
        self.asked = 0
        self.answer: Callable[[], Mapping[int, Mark]] = lambda: self.at

    def marks(self) -> Mapping[int, Mark]:
        self.asked += 1
        return self.answer()


class House:
    def __init__(self) -> None:
        self.facts, self.control = View("balances", FACTS), View("directory", CONTROL)
        views = {view.name: view for view in (self.facts, self.control)}
        self.arrivals = Arrivals(Freshness(views, {}, MemoryParking(), lambda: datetime.now(UTC)))

    async def reached(self, position: Position, seconds: float = LONG) -> bool:
        return await self.arrivals.reached(["directory", "balances"], [position], seconds)


async def test_only_the_view_that_a_position_concerns_is_asked() -> None:
    """A request's position says nothing about views of control events."""
    house = House()
    house.facts.at = {3: Mark(18)}
    assert await house.reached(Position(partition=3, offset=17))
    assert (house.facts.asked, house.control.asked) == (1, 0)


async def test_it_is_told_when_the_view_is_there() -> None:
    """Not one record before."""
    house = House()
    house.facts.at = {3: Mark(17)}
    waiting = asyncio.create_task(house.reached(Position(partition=3, offset=17)))
    await until(lambda: house.facts.asked > 2, "some questions")
    assert not waiting.done()
    house.facts.at = {3: Mark(18)}
    assert await waiting


async def test_a_view_that_does_not_come_is_given_up_and_left_alone() -> None:
    """Within the time that a read waits; nobody asks it any more then."""
    house = House()
    assert not await house.reached(Position(journal=5), 0.1)
    await until(lambda: house.arrivals._views["directory"]._asking.done(), "nobody asks")  # type: ignore[union-attr]  # it was asked


async def test_many_who_wait_are_one_question() -> None:
    """A question that is under way is followed by one for all who came meanwhile, however many."""
    house, going = House(), threading.Event()
    house.facts.answer = lambda: (going.wait(LONG), {3: Mark(100)})[1]
    waiting = [asyncio.create_task(house.reached(Position(partition=3, offset=n))) for n in range(50)]
    await until(lambda: house.facts.asked == 1, "the first question")
    waiting += [asyncio.create_task(house.reached(Position(partition=3, offset=n))) for n in range(50)]
    await asyncio.sleep(0)
    going.set()
    assert all(await asyncio.gather(*waiting))
    assert house.facts.asked == 2


async def test_an_answer_counts_for_those_who_came_before_the_question() -> None:
    """Who came while it was asked may want what is older than his coming: the next question is his."""
    house, going = House(), threading.Event()
    old = {3: Mark(1)}
    house.facts.answer = lambda: (going.wait(LONG), old)[1]
    first = asyncio.create_task(house.reached(Position(partition=3, offset=0)))
    await until(lambda: house.facts.asked == 1, "the first question")
    second = asyncio.create_task(house.reached(Position(partition=3, offset=0)))
    await asyncio.sleep(0)
    going.set()
    assert await first
    assert await second
    assert house.facts.asked == 2


async def test_a_view_that_cannot_be_asked_is_an_error_for_each_who_waits() -> None:
    """And is asked anew by who comes after."""
    house = House()

    def away() -> Mapping[int, Mark]:
        raise Unavailable("the database is away")

    house.facts.answer = away
    for _ in range(2):
        with pytest.raises(Unavailable, match="away"):
            await house.reached(Position(partition=3, offset=0))
    house.facts.answer = lambda: {3: Mark(1)}
    assert await house.reached(Position(partition=3, offset=0))
