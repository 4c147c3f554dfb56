"""Opening the gate: fence, barrier, books up to the barrier, and what nobody serves any more."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import pytest

from commands.fact_writer import FactWriter
from commands.opening import Opening
from domain.envelope import decode
from domain.facts import Fact, GateOpened, RequestCompleted, RequestUnconfirmed, Usage, identity_of
from domain.fold import State
from domain.registry import decode_event
from tests.factgen import MemoryLog, envelope
from tests.fakes import InstantLog, LogBalances, MemoryJournal
from tests.unit.pieces import MORNING, PARTITION, ToldGate, Watch, admission, facts, writer

ONE = range(PARTITION, PARTITION + 1)
STREAM = f"_/gate/{PARTITION}"


class ToldLog(InstantLog):
    """Tells when it took a barrier, and lets one more fact slip in right behind it."""

    def __init__(self, topic: MemoryLog, story: list[tuple[Any, ...]]) -> None:
        super().__init__(topic)
        self.story = story
        self.behind: Fact | None = None

    def append(self, partition: int, body: bytes) -> Any:
        answer: Awaitable[int] = super().append(partition, body)
        fact = decode_event(decode(body))
        if isinstance(fact, GateOpened):
            self.story.append(("barrier", partition, fact.epoch))
            if self.behind is not None:
                self.topic.append(partition, envelope(self.behind, MORNING, 99))
        return answer


@dataclass
class House:
    writer: FactWriter
    log: ToldLog
    gate: ToldGate
    journal: MemoryJournal
    opening: Opening
    story: list[tuple[Any, ...]]
    seen: dict[int, int] = field(default_factory=dict)
    """How far the balances view is; whole partitions unless told."""

    def happened(self, *past: Fact) -> None:
        for number, fact in enumerate(past):
            self.log.topic.append(PARTITION, envelope(fact, MORNING, number))

    async def open(self, *, abandoned: bool = False, partitions: range = ONE) -> None:
        await self.opening.open(partitions, abandoned=abandoned)
        await self.writer.drain()


@pytest.fixture
async def house() -> House:
    story: list[tuple[Any, ...]] = []
    topic, journal, gate, clock = MemoryLog(), MemoryJournal(), ToldGate(story), Watch()
    log = ToldLog(topic, story)
    facts_writer = writer(log, clock)
    seen: dict[int, int] = {}
    balances = LogBalances(topic, lambda partition: seen.get(partition, len(topic.records[partition])))

    async def relayed(position: int) -> None:
        assert journal.position == position
        story.append(("fenced", position))

    numbers = iter(range(1000))
    opening = Opening(
        gate, journal, relayed, facts_writer, balances, topic, clock, lambda prefix: f"{prefix}_{next(numbers)}", 0.0
    )
    return House(facts_writer, log, gate, journal, opening, story, seen)


def completed(request: str, cost: int) -> RequestCompleted:
    return RequestCompleted(**identity_of(admission(request)), usage=Usage(input=1), cost=cost)


async def test_fence_then_emptiness_then_barrier_then_books(house: House) -> None:
    """Every partition is fenced and relayed before any gate is emptied, and has its barrier before it is opened."""
    await house.open(partitions=range(3, 5))
    assert house.story == [
        ("fenced", 2),
        ("begin", 3, 0),
        ("begin", 4, 0),
        ("barrier", 3, 0),
        ("barrier", 4, 0),
        ("finish", 3, 0),
        ("finish", 4, 0),
    ]


async def test_each_opening_is_a_new_epoch(house: House) -> None:
    """One above the last, and the next version of the partition's stream."""
    for _ in range(3):
        await house.open()
    fences = [decode(body) for body in house.journal.load(STREAM)]
    assert [fence.version for fence in fences] == [1, 2, 3]
    assert [decode_event(fence).epoch for fence in fences] == [0, 1, 2]
    assert house.gate.loaded[PARTITION][0] == 2


@pytest.mark.parametrize("behind", [0, 1, 2, 3])
async def test_the_books_reach_to_the_barrier_however_far_the_view_is(house: House, behind: int) -> None:
    """What the view has not taken in is read from the log; what came behind the barrier is not counted."""
    house.happened(admission("req_1"), completed("req_1", 30), admission("req_2", hold=100))
    house.seen[PARTITION] = 3 - behind
    house.log.behind = admission("req_late", epoch=0)
    await house.open()
    _, watermark, books = house.gate.loaded[PARTITION]
    (bucket,) = books.buckets.values()
    assert watermark == 4
    assert (bucket.consumed, bucket.held) == (30, 100)
    assert {name: known.state for name, known in books.attempts.items()} == {
        "req_1": State.DONE,
        "req_2": State.OPEN,
    }


@pytest.mark.parametrize("behind", [0, 3])
async def test_what_a_lost_gateway_left_open_becomes_unconfirmed(house: House, behind: int) -> None:
    """Its hold counts until it is known better; what had ended stays as it is."""
    house.happened(admission("req_1"), completed("req_1", 30), admission("req_2"))
    house.seen[PARTITION] = 3 - behind
    await house.open(abandoned=True)
    late = facts(house.log.topic)[4:]
    assert [(type(fact), fact.attempt, fact.reason) for fact in late] == [(RequestUnconfirmed, "req_2", "gateway_lost")]


async def test_what_another_gateway_may_be_serving_stays_open(house: House) -> None:
    """Nothing follows the barrier."""
    house.happened(admission("req_1"))
    await house.open(abandoned=False)
    assert [type(fact) for fact in facts(house.log.topic)][1:] == [GateOpened]
