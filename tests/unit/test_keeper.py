"""The keeper: ends what nobody else will end, once, and not too early."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from commands.admission import DELTA
from commands.keeper import Keeper
from commands.ports import OpenHold
from domain.facts import Fact, RequestUnconfirmed, RequestVoided, RequestWrittenOff, identity_of
from domain.write_off import WriteOff
from tests.factgen import MemoryLog, envelope
from tests.fakes import InstantLog, LogBalances
from tests.unit.pieces import MORNING, ORG, PARTITION, ToldGate, Watch, admission, facts, writer

MOMENT = timedelta(milliseconds=1)


class Orders:
    def __init__(self) -> None:
        self.given: dict[tuple[str, str, str], WriteOff] = {}

    def state(self, kind: str, org: str, name: str) -> WriteOff | None:
        return self.given.get((kind, org, name))


@dataclass
class House:
    """The view sees what `happened`, and nothing that the keeper wrote."""

    topic: MemoryLog
    gate: ToldGate
    orders: Orders
    clock: Watch
    keeper: Keeper
    known: int = 0

    def happened(self, *past: Fact) -> None:
        for number, fact in enumerate(past):
            self.topic.append(PARTITION, envelope(fact, MORNING, number))
        self.known = len(self.topic.records[PARTITION])

    async def tick(self) -> list[Fact]:
        """One round; what it wrote."""
        before = len(self.topic.records[PARTITION])
        await self.keeper.tick()
        return facts(self.topic)[before:]


@pytest.fixture
async def house() -> House:
    topic, gate, orders, clock = MemoryLog(), ToldGate(), Orders(), Watch()
    keeper = Keeper(
        gate,
        writer(InstantLog(topic), clock),
        lambda: LogBalances(topic, lambda p: made.known if p == PARTITION else 0),
        orders,
        clock,
    )
    made = House(topic, gate, orders, clock, keeper)
    return made


async def test_an_open_attempt_past_its_deadline_becomes_unconfirmed(house: House) -> None:
    """Not at its deadline, only past it; its fact repeats who it was."""
    admitted = admission("req_1")
    house.happened(admitted)
    house.clock.now = admitted.deadline
    assert await house.tick() == []
    house.clock.now += MOMENT
    assert await house.tick() == [RequestUnconfirmed(**identity_of(admitted), reason="deadline", backend="fake")]


async def test_the_same_is_not_said_again_within_the_minute(house: House) -> None:
    """The views may not know of it yet; if they still do not after a minute, it is said again."""
    house.happened(admission("req_1"))
    house.clock.advance(3600)
    assert len(await house.tick()) == 1
    house.clock.advance(59.9)
    assert await house.tick() == []
    house.clock.advance(0.1)
    assert len(await house.tick()) == 1


async def test_a_hold_without_an_admission_is_voided_after_two_deltas_only(house: House) -> None:
    """Before that its admission may still arrive; after, it is voided once."""
    house.gate.unlogged.append((MORNING, OpenHold(PARTITION, ORG, "req_1")))
    house.clock.now = MORNING + timedelta(seconds=2 * DELTA)
    assert await house.tick() == []
    house.clock.now += MOMENT
    assert await house.tick() == [RequestVoided(attempt="req_1", org=ORG)]
    assert await house.tick() == []


async def test_an_ordered_write_off_ends_an_unconfirmed_attempt(house: House) -> None:
    """Only the attempt that was ordered, with the reason that was given, once."""
    one, two = admission("req_1"), admission("req_2")
    house.happened(one, two, *(RequestUnconfirmed(**identity_of(fact), reason="deadline") for fact in (one, two)))
    assert await house.tick() == []
    house.orders.given["write-off", ORG, "req_2"] = WriteOff(request="req_2", attempt="req_2", reason="asked them")
    assert await house.tick() == [RequestWrittenOff(**identity_of(two), reason="asked them")]
    assert await house.tick() == []


async def test_an_order_for_what_is_not_unconfirmed_does_nothing(house: House) -> None:
    """An open attempt may yet complete."""
    house.happened(admission("req_1"))
    house.orders.given["write-off", ORG, "req_1"] = WriteOff(request="req_1", attempt="req_1", reason="asked them")
    assert await house.tick() == []
