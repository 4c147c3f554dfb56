"""The end of a topic and single records, on a real Kafka: asked by many threads, of brokers that come late or go."""

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer
from kafka import TopicPartition

from domain.errors import LogUnavailable
from infra.adapters.kafka_facts import KafkaFactLog
from infra.adapters.kafka_tail import KafkaTail
from infra.stack import Stack
from tests.contract.kafka_house import BROKER, LANES, admin, envelope, leader, new_topic
from tests.waiting import PATIENCE, until

NOBODY = "127.0.0.1:1"


@pytest.fixture
def tail(servers: str, topic: str) -> Iterator[KafkaTail]:
    made = KafkaTail(servers, topic, LANES, patience=20.0)
    yield made
    made.close()


async def append(servers: str, topic: str, lane: int, bodies: list[bytes]) -> None:
    log = KafkaFactLog(servers, topic, patience=90.0)  # a deadline bounds a hang
    await asyncio.gather(*(log.append(lane, body) for body in bodies))
    await log.close()


def append_at_once(servers: str, topic: str, body: bytes) -> None:
    """Without the identity of an idempotent producer, which a cluster hands out no sooner than its controller answers."""
    producer = Producer({"bootstrap.servers": servers, "acks": "all"})
    producer.produce(topic, body, partition=0)
    assert producer.flush(PATIENCE) == 0


async def test_the_end_is_behind_what_was_acknowledged(tail: KafkaTail, servers: str, topic: str) -> None:
    """At once, and of each partition by itself."""
    assert [tail.end(lane) for lane in range(LANES)] == [0, 0, 0]
    await append(servers, topic, 1, [envelope() for _ in range(7)])
    assert [tail.end(lane) for lane in range(LANES)] == [0, 7, 0]


async def test_any_record_by_any_thread(tail: KafkaTail, servers: str, topic: str) -> None:
    """Many at once get what they asked for, and nothing where there is nothing."""
    bodies = [[envelope() for _ in range(60)] for _ in range(2)]
    for lane in range(2):
        await append(servers, topic, lane, bodies[lane])
    chosen = random.Random(7)
    places = [(chosen.randrange(2), chosen.randrange(70)) for _ in range(200)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda place: tail.read(place[0], place[1], 1), places))
    for (lane, offset), records in zip(places, found, strict=True):
        expected = [(lane, offset, bodies[lane][offset])] if offset < 60 else []
        assert [(record.partition, record.offset, record.value) for record in records] == expected


async def test_a_record_that_is_gone_is_an_error(tail: KafkaTail, servers: str, topic: str) -> None:
    """Not the next one that is there."""
    await append(servers, topic, 0, [envelope() for _ in range(5)])
    with admin(servers) as kafka:
        kafka.delete_records({TopicPartition(topic, 0): 3})
    with pytest.raises(LogUnavailable):
        tail.read(0, 0, 1)
    assert [record.offset for record in tail.read(0, 3, 1)] == [3]


def test_an_unreachable_broker_is_said_so() -> None:
    """A bounded wait, and again at the next question."""
    tail = KafkaTail(NOBODY, "t", 1, patience=0.3)
    for _ in range(2):
        with pytest.raises(LogUnavailable):
            tail.end(0)
        with pytest.raises(LogUnavailable):
            tail.read(0, 0, 1)
    tail.close()


async def test_a_broker_that_comes_later_is_asked(stack: Stack, servers: str, topic: str) -> None:
    """The first questions fail; then the answers are right."""
    await append(servers, topic, 0, [body := envelope()])
    tail = KafkaTail(servers, topic, LANES, patience=0.5)
    stack.kill(BROKER)
    try:
        with pytest.raises(LogUnavailable):
            tail.end(0)
    finally:
        await asyncio.to_thread(stack.start, BROKER)
    try:
        await until(lambda: _end(tail) == 1, "an answer", 30.0)
        assert [record.value for record in tail.read(0, 0, 1)] == [body]
    finally:
        tail.close()


async def test_the_new_leader_is_asked(stack_of_three: Stack) -> None:
    """A broker that stood still while another took over is not asked for ever."""
    stack_of_three.up()
    servers = stack_of_three.urls["kafka"]
    name = new_topic(servers, 1)
    tail = KafkaTail(servers, name, 1, patience=1.5)
    try:
        assert await asyncio.to_thread(tail.end, 0) == 0
        old = leader(servers, name)
        others = ",".join(each for number, each in enumerate(servers.split(","), 1) if number != old)
        await asyncio.to_thread(stack_of_three.pause, f"kafka-{old}")
        try:
            await until(lambda: leader(others, name) not in (old, -1), "another leader")
            append_at_once(others, name, envelope())
        finally:
            await asyncio.to_thread(stack_of_three.resume, f"kafka-{old}")
        await until(lambda: _end(tail) == 1, "an answer of the new leader", 30.0)
    finally:
        tail.close()


def _end(tail: KafkaTail) -> int | None:
    try:
        return tail.end(0)
    except LogUnavailable:
        return None
