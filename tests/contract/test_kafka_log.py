"""The log on a real Kafka: appends, and a broker that is killed or cannot be reached."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from confluent_kafka import KafkaError, Message, Producer
from kafka.partitioner.default import murmur2 as murmur2_of_kafka_python

from domain.errors import LogUnavailable
from domain.ids import PARTITIONS, murmur2, partition_of
from infra.adapters import kafka_writer
from infra.adapters.kafka_facts import KafkaFactLog
from infra.adapters.kafka_reader import KafkaLogReader
from infra.stack import Stack
from tests.contract.kafka_house import (
    BROKER,
    LANES,
    consumer,
    envelope,
    everything,
    kill_and_restart,
    new_topic,
    read_from,
)
from tests.waiting import PATIENCE, until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOBODY = "127.0.0.1:1"


class TestAppend:
    async def test_order_of_calls_is_order_in_a_partition(self, facts: KafkaFactLog, servers: str, topic: str) -> None:
        """A thousand appends at once: offsets without holes, in the order of the calls, each with its own bytes."""
        bodies = [[envelope() for _ in range(400)] for _ in range(LANES)]
        calls = [(lane, body) for row in zip(*bodies, strict=True) for lane, body in enumerate(row)]
        offsets = await asyncio.gather(*(facts.append(lane, body) for lane, body in calls))
        for lane in range(LANES):
            assert [offset for (at, _), offset in zip(calls, offsets, strict=True) if at == lane] == list(range(400))
        found = everything(servers, topic, LANES)
        assert [[record.value for record in records] for records in found] == bodies
        assert all(record.position == record.previous == 0 for records in found for record in records)

    async def test_a_record_says_what_it_is(self, servers: str, topic: str) -> None:
        """CloudEvents 1.0 in Kafka's binary mode, keyed by the organization, in the trace of its caller."""
        log = KafkaFactLog(servers, topic, patience=20.0)
        body = envelope(org="globex").replace(b'"data":', b'"traceparent":"%b","data":' % TRACE.encode())
        await log.append(1, body)
        await log.close()
        with consumer(servers, topic) as other:
            record = next(other)
        headers = dict(record.headers)
        assert (record.partition, record.key, record.value) == (1, b"globex", body)
        assert (headers["ce_specversion"], headers["ce_source"]) == (b"1.0", b"tollhouse")
        assert (headers["ce_type"], headers["traceparent"]) == (b"RequestVoided", TRACE.encode())
        assert headers["ce_id"] in body
        assert headers["content-type"] == b"application/json"

    async def test_close_writes_what_is_in_flight(self, servers: str, topic: str) -> None:
        """Nothing that was appended before is lost with the process."""
        log = KafkaFactLog(servers, topic, patience=20.0)
        appended = [log.append(0, envelope()) for _ in range(500)]
        await log.close()
        assert await asyncio.gather(*appended) == list(range(500))

    async def test_too_much_in_flight_is_refused_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Back-pressure: what does not fit fails, what fits fails at its deadline, and nothing hangs."""
        monkeypatch.setattr(kafka_writer, "_QUEUED_RECORDS", 10)
        log = KafkaFactLog(NOBODY, patience=0.5)
        appended = [log.append(0, envelope()) for _ in range(11)]
        assert [future.done() for future in appended] == [False] * 10 + [True]
        async with asyncio.timeout(PATIENCE):
            failed = await asyncio.gather(*appended, return_exceptions=True)
            await log.close()
        assert {type(error) for error in failed} == {LogUnavailable}

    async def test_a_producer_that_gave_up_is_replaced(self, servers: str, topic: str) -> None:
        """Kafka's client never recovers from what it calls fatal; the log does."""
        log = KafkaFactLog(servers, topic, patience=20.0)
        await log.append(0, envelope())
        log._writer.broken = True
        assert await log.append(0, envelope()) == 1
        await log.close()


class TestOutage:
    async def test_the_broker_is_killed_under_appends(self, stack: Stack, servers: str, topic: str) -> None:
        """Every acknowledged append is at its offset; in each partition they are in the order of the calls; a record is there
        more than once only where appends failed."""
        await kill_under_appends(stack, servers, topic, [BROKER, BROKER])

    async def test_each_of_three_brokers_is_killed_under_appends(self, stack_of_three: Stack) -> None:
        """The same, where two others go on."""
        stack_of_three.up()
        servers = stack_of_three.urls["kafka"]
        await kill_under_appends(stack_of_three, servers, new_topic(servers, LANES), ["kafka-1", "kafka-2", "kafka-3"])

    async def test_appends_fail_in_time_and_go_through_again_by_themselves(
        self, stack: Stack, servers: str, topic: str
    ) -> None:
        """While the broker is dead: `LogUnavailable`. Once it is back: an offset, from the same object."""
        log = KafkaFactLog(servers, topic, patience=0.5)
        reader = KafkaLogReader(servers, topic, LANES, patience=0.5)
        await asyncio.wait_for(_until_appended(log), PATIENCE)
        assert reader.ends()[0] == 1
        stack.kill(BROKER)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(LogUnavailable):
                await log.append(0, envelope())
            with pytest.raises(LogUnavailable):
                await asyncio.to_thread(reader.ends)
        stack.start(BROKER)
        offset = await asyncio.wait_for(_until_appended(log), PATIENCE)
        await until(lambda: _ends(reader)[0] > offset, "the reader sees the append")
        assert read_from(reader, 0, offset, offset + 1)[0].offset == offset
        await log.close()
        reader.close()


async def kill_under_appends(stack: Stack, servers: str, topic: str, victims: Sequence[str]) -> None:
    """Kills one broker after the other under appends that are repeated until they are acknowledged, and compares."""
    log = KafkaFactLog(servers, topic, patience=1.0)
    acknowledged: list[list[tuple[int, bytes]]] = [[] for _ in range(LANES)]
    failures: Counter[bytes] = Counter()
    stopping = asyncio.Event()

    async def append_until_acknowledged(lane: int, body: bytes) -> int:
        while True:
            try:
                return await log.append(lane, body)
            except LogUnavailable:
                failures[body] += 1

    async def keep_appending(lane: int) -> None:
        while not stopping.is_set():
            bodies = [envelope() for _ in range(4)]
            offsets = await asyncio.gather(*(append_until_acknowledged(lane, body) for body in bodies))
            acknowledged[lane] += zip(offsets, bodies, strict=True)

    async def more_appends() -> None:
        least = [len(lane) + 100 for lane in acknowledged]
        await until(lambda: all(len(lane) > count for lane, count in zip(acknowledged, least, strict=True)), "appends")

    appending = [asyncio.create_task(keep_appending(lane)) for lane in range(LANES)]
    for victim in victims:
        await more_appends()
        await kill_and_restart(stack, victim)
    await more_appends()
    stopping.set()
    await asyncio.gather(*appending)
    await log.close()
    for lane, records in enumerate(everything(servers, topic, LANES)):
        values = [record.value for record in records]
        assert [record.offset for record in records] == list(range(len(records)))
        assert all(values[offset] == body for offset, body in acknowledged[lane])
        unfailed = [offset for offset, body in acknowledged[lane] if not failures[body]]
        assert unfailed == sorted(unfailed)
        if not any(failures[value] for value in values):
            assert len(set(values)) == len(values), "doubled though nothing failed"


async def _until_appended(log: KafkaFactLog) -> int:
    while True:
        try:
            return await log.append(0, envelope())
        except LogUnavailable:
            await asyncio.sleep(0.05)


def _ends(reader: KafkaLogReader) -> list[int]:
    try:
        return list(reader.ends())
    except LogUnavailable:
        return [0] * LANES


async def test_all_clients_agree_on_the_partition_of_an_organization(servers: str) -> None:
    """Ours, kafka-python's default and librdkafka's murmur2_random: one organization is one ordered partition."""
    orgs = [f"{name}-{number}" * length for name in ("a", "ém", "org") for number in range(20) for length in (1, 2, 5)]
    assert [murmur2(org.encode()) for org in orgs] == [
        murmur2_of_kafka_python(org.encode()) & 0xFFFFFFFF for org in orgs
    ]
    topic = new_topic(servers, PARTITIONS)
    chosen: dict[str, int | None] = {}

    def sent(_: KafkaError | None, message: Message) -> None:
        key = message.key()
        assert isinstance(key, bytes)
        chosen[key.decode()] = message.partition()

    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
    for org in orgs:
        producer.produce(topic, b"x", org.encode(), on_delivery=sent)
    producer.flush(PATIENCE)
    assert chosen == {org: partition_of(org) for org in orgs}
