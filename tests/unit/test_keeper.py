"""The keeper ends what nobody else will end: at its deadline, after its wait, when ordered, and once."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from commands.admission import DELTA
from commands.fact_writer import FactWriter
from commands.gate import OpenHold
from commands.keeper import Keeper
from commands.ports import Overdue
from domain import write_off
from tests.factgen import MemoryLog
from tests.facts import NOON, ORG, TIMEOUT, admitted, completed, facts_of, log_of, names_of, opened, unconfirmed
from tests.fakes import InstantLog, LogBalances


class House:
    """A keeper over a log. `unlogged` are the holds its gate knows of, with the moment of their admission."""

    def __init__(self, topic: MemoryLog) -> None:
        self.topic, self.now = topic, NOON
        self.unlogged: dict[str, datetime] = {}
        self.ordered: dict[str, write_off.WriteOff] = {}
        writer = FactWriter(InstantLog(topic), self.clock, lambda prefix: f"{prefix}_x")
        self.seen: int | None = None
        balances = LogBalances(topic, lambda p: len(topic.records[p]) if self.seen is None else self.seen)
        self.keeper = Keeper(self, writer, lambda: balances, self, self.clock)  # type: ignore[arg-type]  # a gate that lists

    def clock(self) -> datetime:
        return self.now

    async def expired(self, before: datetime) -> list[OpenHold]:
        return [OpenHold(0, ORG, attempt) for attempt, at in self.unlogged.items() if at < before]

    def write_offs(self) -> list[tuple[str, str]]:
        return [(ORG, attempt) for attempt in self.ordered]

    def state(self, kind: str, org: str, name: str) -> Any:
        assert (kind, org) == (write_off.KIND, ORG)
        return self.ordered.get(name)

    async def tick(self, seconds: float = 0.0) -> list[str]:
        """The facts that a round after so many seconds appends."""
        self.now += timedelta(seconds=seconds)
        before = len(self.topic.records[0])
        await self.keeper.tick()
        return names_of(self.topic)[before:]


async def test_an_open_attempt_past_its_deadline_becomes_unconfirmed() -> None:
    """Not before, and not one that has ended."""
    house = House(log_of(opened(0), admitted("a"), admitted("b"), completed(admitted("b"))))
    assert await house.tick(TIMEOUT.total_seconds()) == []
    assert await house.tick(0.001) == ["Unconfirmed a"]
    fact = facts_of(house.topic)[-1]
    assert (fact.reason, fact.backend, fact.accounted_at) == ("deadline", "fake", NOON)
    assert await house.tick(3600) == []


async def test_a_view_that_is_behind_gets_no_second_fact_at_once() -> None:
    """A minute later it does: a second one does no harm, and the first may have been lost with its process."""
    house = House(log_of(opened(0), admitted("a")))
    house.seen = 2
    assert await house.tick(700) == ["Unconfirmed a"]
    assert await house.tick(59) == []
    assert await house.tick(1) == ["Unconfirmed a"]


async def test_an_unlogged_hold_is_voided_after_twice_delta() -> None:
    """Before that its admission may yet arrive, and be dispatched."""
    house = House(log_of(opened(0)))
    house.unlogged["a"] = NOON
    assert await house.tick(2 * DELTA) == []
    assert await house.tick(0.001) == ["Voided a"]
    assert facts_of(house.topic)[-1].org == ORG
    assert await house.tick(1) == []


async def test_an_ordered_write_off_becomes_the_fact() -> None:
    """Of an unconfirmed attempt, with its reason; an order for anything else waits."""
    house = House(log_of(opened(0), admitted("a"), admitted("b"), unconfirmed(admitted("a"))))
    for attempt in ("a", "b", "nobody"):
        house.ordered[attempt] = write_off.WriteOff(request=attempt, attempt=attempt, reason="agreed")
    assert await house.tick() == ["WrittenOff a"]
    assert facts_of(house.topic)[-1].reason == "agreed"
    assert await house.tick(120) == []
    assert await house.tick(600) == ["Unconfirmed b", "WrittenOff b"]


class ManyUnconfirmed:
    """Balances of so many unconfirmed attempts that nobody may ask for all of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def overdue(self, now: datetime) -> list[Overdue]:
        return []

    def awaiting(self, attempts: Sequence[str]) -> list[Overdue]:
        self.asked += attempts
        return []


async def test_a_round_looks_only_at_what_was_ordered() -> None:
    """What is unconfirmed may be any number, and wait for weeks. An order is looked at when it comes; one that finds nothing to
    write off, once a minute: the view may have been behind."""
    house = House(log_of())
    balances = ManyUnconfirmed()
    house.keeper.balances = lambda: balances  # type: ignore[assignment,return-value]  # all that a round may ask for
    for number in range(1200):
        house.ordered[f"a{number}"] = write_off.WriteOff(request="a", attempt=f"a{number}", reason="agreed")
    await house.tick()
    assert balances.asked == list(house.ordered)
    house.ordered["late"] = write_off.WriteOff(request="late", attempt="late", reason="agreed")
    balances.asked.clear()
    await house.tick(1)
    await house.tick(1)
    assert balances.asked == ["late"]
    balances.asked.clear()
    await house.tick(58)
    assert balances.asked == list(house.ordered)


@pytest.mark.parametrize("attempts", [0, 3])
async def test_one_round_sees_to_everything(attempts: int) -> None:
    """However much there is."""
    house = House(log_of(opened(0), *(admitted(f"a{number}") for number in range(attempts))))
    house.unlogged = {f"h{number}": NOON for number in range(attempts)}
    expected = [f"Unconfirmed a{n}" for n in range(attempts)] + [f"Voided h{n}" for n in range(attempts)]
    assert await house.tick(700) == expected
