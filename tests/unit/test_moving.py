"""What is carried into an installation comes to its old places, goes on where it stopped, and is refused where it cannot."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from commands.moving import (
    FORMAT,
    ControlRecord,
    FactRecord,
    Head,
    JournalEvent,
    Moved,
    carry_in,
)
from commands.ports import CommandRow, Stored
from domain.errors import Conflict, Invalid, LogUnavailable
from domain.ids import PARTITIONS
from projections.ports import CONTROL, FACTS
from tests.factgen import MemoryLog
from tests.fakes import InstantLog

CHAIN = [ControlRecord(2, 0, b"a"), ControlRecord(5, 2, b"b"), ControlRecord(5, 2, b"b"), ControlRecord(9, 5, b"c")]
"""With a hole, and a record that came twice."""

HAPPENED = [FactRecord(0, b"x"), FactRecord(0, b"y"), FactRecord(2, b"z")]
JOURNAL = [
    JournalEvent("o/k/1", 1, "T", 2, b"a"),
    JournalEvent("o/k/1", 2, "T", 5, b"b"),
    JournalEvent("o/k/2", 1, "T", 9, b"c"),
]

HEAD = Head(
    format=FORMAT,
    made_at=datetime(2026, 11, 23, tzinfo=UTC),
    secret="s",
    partitions=PARTITIONS,
    journal=len(JOURNAL),
    commands=0,
    control=len(CHAIN),
    facts=len(HAPPENED),
)


@dataclass
class Source:
    """`Archive`."""

    head: Head = HEAD

    def journal(self) -> Iterator[JournalEvent]:
        return iter(JOURNAL)

    def commands(self) -> Iterator[CommandRow]:
        return iter(())

    def control(self) -> Iterator[ControlRecord]:
        return iter(CHAIN)

    def facts(self) -> Iterator[FactRecord]:
        return iter(HAPPENED)


@dataclass
class House:
    """`Empty`, in memory."""

    facts: MemoryLog = field(default_factory=lambda: MemoryLog(FACTS))
    control: MemoryLog = field(default_factory=lambda: MemoryLog(CONTROL))
    events: list[JournalEvent] = field(default_factory=list)
    log: Any = None

    def __post_init__(self) -> None:
        self.log = InstantLog(self.facts)

    def restore(self, events: Iterable[JournalEvent], commands: Iterable[CommandRow]) -> int:
        before, self.events = self.events, list(events)
        assert not list(commands)
        return len(self.events) - len(before)

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        for event in events:
            self.control.append(0, event.body, event.position, previous)
            previous = event.position

    async def carry(self, source: Source | None = None, secret: str = "s", partitions: int = PARTITIONS) -> Moved:
        return await carry_in(source or Source(), self, secret, partitions, lambda _done, _total: None)

    def holds(self) -> bool:
        """Whether everything is at its place."""
        facts = [(record.partition, record.value) for record in self.facts.all()]
        chain = [(record.position, record.previous, record.value) for record in self.control.all()]
        return (
            facts == [(record.partition, record.body) for record in HAPPENED]
            and chain == [(record.position, record.previous, record.body) for record in CHAIN]
            and self.events == JOURNAL
        )


async def test_everything_comes_to_its_place_once() -> None:
    """Journal, chain and facts; a second time nothing is written."""
    house = House()
    first = await house.carry()
    assert (first.journal, first.control, first.facts, first.there_already) == (3, 4, 3, 0)
    assert house.holds()
    second = await house.carry()
    assert (second.journal, second.control, second.facts, second.there_already) == (0, 0, 0, 10)
    assert house.holds()


@pytest.mark.parametrize("facts", range(len(HAPPENED) + 1))
@pytest.mark.parametrize("chain", range(len(CHAIN) + 1))
async def test_it_goes_on_wherever_it_stopped(facts: int, chain: int) -> None:
    """Whatever prefix of a topic is there, the rest follows."""
    house = House()
    for fact in HAPPENED[:facts]:
        house.facts.append(fact.partition, fact.body)
    for record in CHAIN[:chain]:
        house.control.append(0, record.body, record.position, record.previous)
    moved = await house.carry()
    assert (moved.control, moved.facts) == (len(CHAIN) - chain, len(HAPPENED) - facts)
    assert house.holds()


async def test_a_log_that_breaks_off_is_gone_on_with() -> None:
    """`LogUnavailable` in the middle; what may have been written is found there the next time."""
    house = House()
    house.log.break_off()
    with pytest.raises(LogUnavailable):
        await house.carry()
    house.log.come_back()
    await house.carry()
    assert house.holds()


@pytest.mark.parametrize(
    ("topic", "value"), [("facts", b"other"), ("control", b"other")], ids=["other facts", "another chain"]
)
async def test_an_installation_in_use_is_left_alone(topic: str, value: bytes) -> None:
    """Nothing is written behind somebody else's records."""
    house = House()
    getattr(house, topic).append(0, value)
    with pytest.raises(Conflict) as refused:
        await house.carry()
    assert refused.value.code == "not_empty"
    assert (len(house.facts.all()) + len(house.control.all()), house.events) == (1, [])


async def test_more_than_is_carried_is_another_installation() -> None:
    """All of the file is there, and goes on."""
    house = House()
    await house.carry()
    house.facts.append(11, b"later")
    with pytest.raises(Conflict) as refused:
        await house.carry()
    assert refused.value.code == "not_empty"


async def test_a_record_that_comes_elsewhere_is_told() -> None:
    """Somebody else writes to the topic at the same time."""
    house = House()
    append = house.log.append

    def shoved(partition: int, body: bytes) -> Any:
        house.facts.append(partition, b"intruder")
        return append(partition, body)

    house.log.append = shoved
    with pytest.raises(Conflict, match="came to offset 1, not 0"):
        await house.carry()


async def test_what_would_not_be_the_same_is_refused_before_anything_is_written() -> None:
    """Another secret, another number of partitions, another format."""
    house = House()
    for source, secret, partitions, code in (
        (Source(), "t", PARTITIONS, "other_secret"),
        (Source(), "s", PARTITIONS + 1, "partition_count"),
    ):
        with pytest.raises(Conflict) as refused:
            await house.carry(source, secret, partitions)
        assert refused.value.code == code
    with pytest.raises(Invalid, match="format 2"):
        await house.carry(Source(replace(HEAD, format=2)))
    assert (house.facts.all(), house.control.all(), house.events) == ([], [], [])
