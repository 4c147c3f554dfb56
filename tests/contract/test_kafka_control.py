"""The control topic on a real Kafka: a chain that stays exact whoever writes, and a relay's log that survives its broker."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from commands.ports import Stored
from commands.relay import Relay
from domain.errors import LogUnavailable
from infra.adapters import kafka_control
from infra.adapters.kafka_control import KafkaControlLog, chain_end
from infra.stack import Stack
from projections.ports import Record
from tests.contract.kafka_house import BROKER, accepted, consumer, envelope, everything, kill_and_restart, new_topic
from tests.waiting import PATIENCE, until


def journal(count: int, size: int = 0) -> list[Stored]:
    """`count` events at positions with holes; `size` bytes are added to each."""
    return [Stored(3 * number, envelope() + b" " * size) for number in range(1, count + 1)]


class Feed:
    """What was committed to a journal."""

    def __init__(self, events: Sequence[Stored]) -> None:
        self.events = list(events)

    def after(self, position: int, limit: int) -> list[Stored]:
        return [event for event in self.events if event.position > position][:limit]


@pytest.fixture
def topic(servers: str) -> str:
    return new_topic(servers, 1)


@pytest_asyncio.fixture
async def control(servers: str, topic: str) -> AsyncIterator[KafkaControlLog]:
    log = KafkaControlLog(servers, topic, patience=20.0)
    yield log
    await log.close()


async def test_events_are_chained_in_order(control: KafkaControlLog, servers: str, topic: str) -> None:
    """Each record carries its own position and the one before; the tail is the last of them."""
    events = journal(25)
    assert await control.tail() == 0
    await control.forward(0, events[:20])
    assert await control.tail() == events[19].position
    await control.forward(events[19].position, events[20:])
    (records,) = everything(servers, topic, 1)
    assert [(r.position, r.value) for r in records] == [(event.position, event.body) for event in events]
    assert [r.previous for r in records] == [0] + [event.position for event in events[:-1]]


async def test_who_wants_to_know_is_told_what_is_there(servers: str, topic: str) -> None:
    """The records as any reader finds them, once all of them are acknowledged."""
    told: list[Record] = []
    log = KafkaControlLog(servers, topic, patience=20.0, landed=told.extend)
    events = journal(25)
    await log.forward(0, events[:20])
    assert len(told) == 20
    await log.forward(events[19].position, events[20:])
    await log.close()
    assert told == everything(servers, topic, 1)[0]


async def test_a_control_record_says_what_it_is_too(control: KafkaControlLog, servers: str, topic: str) -> None:
    """The link comes first among its headers, then CloudEvents; the key is the organization."""
    await control.forward(7, [Stored(9, envelope("globex"))])
    with consumer(servers, topic) as other:
        record = next(other)
    assert record.headers[:2] == [("position", b"9"), ("previous", b"7")]
    assert dict(record.headers)["ce_type"] == b"RequestVoided"
    assert record.key == b"globex"


async def test_more_than_a_batch_arrives_whole(control: KafkaControlLog, servers: str, topic: str) -> None:
    """A forward of several megabytes, with an event that is larger than a batch."""
    events = journal(40, size=60_000)
    events[17] = Stored(events[17].position, envelope() + b" " * 700_000)
    await control.forward(0, events)
    assert [record.value for record in accepted(everything(servers, topic, 1)[0])] == [event.body for event in events]
    assert await control.tail() == events[-1].position


async def test_a_tail_of_what_readers_ignore_is_looked_through(
    control: KafkaControlLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replaced leader's late records may be all there is in the window: the start is then too early, never too late."""
    monkeypatch.setattr(kafka_control, "TAIL", 10)
    events = journal(30)
    await control.forward(0, events)
    await control.forward(0, events[:15])
    assert await control.tail() <= events[-1].position
    await control.forward(events[-1].position, [Stored(1000, envelope())])
    assert await control.tail() == 1000


async def test_a_record_behind_a_gap_is_not_the_tail(control: KafkaControlLog) -> None:
    """What readers cannot accept must be forwarded again: the tail is the last record that they do accept."""
    events = journal(5)
    await control.forward(0, events)
    await control.forward(events[-1].position + 3, [Stored(1000, envelope())])
    assert await control.tail() == events[-1].position


async def test_racing_leaders_do_no_harm(stack: Stack, servers: str, topic: str) -> None:
    """Two relays at once over one journal, through two kills of the broker: readers accept every event once, in order."""
    events = journal(600)
    feed = Feed(events[:100])
    leaders = [KafkaControlLog(servers, topic, patience=1.0) for _ in range(2)]
    relays = [Relay(feed, log, poll=0.01) for log in leaders]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    chance = random.Random(5)
    for kills in range(3):
        while len(feed.events) < 200 * (kills + 1):
            feed.events += events[len(feed.events) : len(feed.events) + chance.randrange(1, 9)]
            await asyncio.sleep(0)
        if kills < 2:
            await kill_and_restart(stack)
        end = feed.events[-1].position
        await until(lambda end=end: all(relay.position >= end for relay in relays), "both relays at the end")  # type: ignore[misc]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for log in leaders:
        await log.close()
    (records,) = everything(servers, topic, 1)
    assert len(records) > len(events), "they did not race"
    assert [record.value for record in accepted(records)] == [event.body for event in feed.events]


async def test_a_failed_forward_is_not_followed_by_later_ones(stack: Stack, servers: str, topic: str) -> None:
    """While the broker is dead: `LogUnavailable` in time. Afterwards the topic's own tail says where to go on."""
    log = KafkaControlLog(servers, topic, patience=1.0)
    events = journal(30)
    await _forwarded_once_it_answers(log, events[:10])
    stack.kill(BROKER)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LogUnavailable):
            await log.forward(events[9].position, events[10:20])
        with pytest.raises(LogUnavailable):
            await log.forward(events[19].position, events[20:])
        with pytest.raises(LogUnavailable):
            await log.tail()
    stack.start(BROKER)
    tail = await _tail_once_it_answers(log)
    assert tail == events[9].position
    await _forwarded_once_it_answers(log, events)
    await log.close()
    assert [record.value for record in accepted(everything(servers, topic, 1)[0])] == [event.body for event in events]


async def _forwarded_once_it_answers(log: KafkaControlLog, events: Sequence[Stored]) -> None:
    """As a relay forwards them: from the tail, again and again."""
    while (tail := await _tail_once_it_answers(log)) < events[-1].position:
        with suppress(LogUnavailable):
            await log.forward(tail, [event for event in events if event.position > tail])


async def _tail_once_it_answers(log: KafkaControlLog) -> int:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await log.tail()
            except LogUnavailable:
                continue


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans()), max_size=40), st.integers(0, 60))
def test_the_end_of_the_chain_is_never_put_too_late(steps: list[tuple[int, int, bool]], start: int) -> None:
    """Leaders that start anywhere behind, stop and race: from whichever record one looks, the end is at most the true one, and
    from the beginning it is exactly that."""
    log: list[int] = []
    at = [0, 0, 0]
    for leader, batch, restarts in steps:
        if restarts:
            at[leader] = len(set(log))
        log += range(at[leader] + 1, at[leader] + batch + 1)
        at[leader] += batch
    records = [Record(0, offset, b"", position, position - 1) for offset, position in enumerate(log)]
    chain = accepted(records)
    truth = chain[-1].position if chain else 0
    assert chain_end(iter(records), 0) == truth
    seen = chain_end(iter(records[start:]))
    assert seen is None or seen <= truth
