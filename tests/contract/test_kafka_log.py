"""The log on a real Kafka: appends, reading, and a broker that is killed or cannot be reached."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.partitioner.default import murmur2 as murmur2_of_kafka_python

from domain.errors import LogUnavailable
from domain.ids import PARTITIONS, murmur2, partition_of
from infra.adapters import kafka_reader, kafka_writer
from infra.adapters.kafka_bulk import KafkaBulkReader
from infra.adapters.kafka_facts import KafkaFactLog
from infra.adapters.kafka_reader import KafkaLogReader
from infra.stack import Stack
from projections.ports import LogReader
from tests.contract.kafka_house import (
    BROKER,
    admin,
    consumer,
    envelope,
    everything,
    kill_and_restart,
    leader,
    new_topic,
    read_from,
)
from tests.waiting import PATIENCE, until

LANES = 3
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOBODY = "127.0.0.1:1"


@pytest.fixture
def servers(stack: Stack) -> str:
    """A broker that answers, whatever the test before did to it."""
    stack.up()
    return stack.urls["kafka"]


@pytest.fixture
def topic(servers: str) -> str:
    return new_topic(servers, LANES)


@pytest_asyncio.fixture
async def facts(servers: str, topic: str) -> AsyncIterator[KafkaFactLog]:
    log = KafkaFactLog(servers, topic, patience=20.0)
    yield log
    await log.close()


@pytest.fixture
def reader(request: pytest.FixtureRequest, servers: str, topic: str) -> Iterator[LogReader]:
    made = request.cls.kind(servers, topic, LANES, patience=20.0)
    yield made
    made.close()


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


class ReaderContract:
    """What every reader of Kafka must do, of the class `kind`."""

    kind: type[KafkaLogReader] | type[KafkaBulkReader]

    async def test_from_any_offset_in_any_order(self, facts: KafkaFactLog, reader: LogReader) -> None:
        """Forwards, back again and across partitions: always what is there, at most `limit`, empty at the end."""
        bodies = [envelope() for _ in range(50)]
        for lane in range(2):
            await asyncio.gather(*(facts.append(lane, body) for body in bodies))
        assert list(reader.ends()) == [50, 50, 0]
        for lane, offset, limit in [(0, 0, 10), (0, 10, 10), (1, 45, 10), (0, 3, 4), (0, 50, 5), (2, 0, 5), (0, 20, 1)]:
            found = reader.read(lane, offset, limit)
            expected = [(lane, at, bodies[at]) for at in range(offset, min(offset + limit, 50)) if lane < 2]
            assert [(record.partition, record.offset, record.value) for record in found] == expected

    async def test_waiting_ends_with_the_next_record(self, facts: KafkaFactLog, reader: LogReader) -> None:
        """Not before it, and soon after it; what was seen already does not count."""
        await facts.append(1, envelope())
        assert not reader.wait([0, 1, 0], 0.2)
        assert reader.wait([0, 0, 0], PATIENCE)
        waiting = asyncio.create_task(asyncio.to_thread(reader.wait, [0, 1, 0], PATIENCE))
        body = envelope()
        await facts.append(2, body)
        assert await waiting
        assert [record.value for record in reader.read(2, 0, 10)] == [body]

    async def test_records_that_are_gone_are_not_passed_over(
        self, facts: KafkaFactLog, reader: LogReader, servers: str, topic: str
    ) -> None:
        """A log that lost its beginning is an error, not a shorter log."""
        await asyncio.gather(*(facts.append(0, envelope()) for _ in range(5)))
        with admin(servers) as kafka:
            kafka.delete_records({TopicPartition(topic, 0): 3})
        with pytest.raises(LogUnavailable):
            reader.read(0, 0, 10)
        assert [record.offset for record in reader.read(0, 3, 10)] == [3, 4]

    async def test_a_reader_that_began_before_its_broker_reads_once_it_is_there(
        self, stack: Stack, servers: str, topic: str
    ) -> None:
        """The first questions fail; afterwards everything is there, from the place that was asked for all along."""
        log = KafkaFactLog(servers, topic, patience=20.0)
        body = envelope()
        assert await log.append(0, body) == 0
        await log.close()
        reader = self.kind(servers, topic, LANES, patience=0.5)
        stack.kill(BROKER)
        try:
            for _ in range(2):
                with pytest.raises(LogUnavailable):
                    reader.wait([0] * LANES, 0.1)
                with pytest.raises(LogUnavailable):
                    reader.read(0, 0, 10)
        finally:
            await asyncio.to_thread(stack.start, BROKER)
        try:
            async with asyncio.timeout(30):
                while True:
                    try:
                        found = await asyncio.to_thread(reader.read, 0, 0, 10)
                        break
                    except LogUnavailable:
                        await asyncio.sleep(0.1)
        finally:
            reader.close()
        assert [record.value for record in found] == [body]

    def test_an_unreachable_broker_is_said_so(self) -> None:
        """A bounded wait, and again at the next question."""
        reader = self.kind(NOBODY, "t", patience=0.3)
        for ask in (reader.ends, lambda: reader.read(0, 0, 1), lambda: reader.wait([0], 0.1)):
            with pytest.raises(LogUnavailable):
                ask()
        reader.close()


class TestRead(ReaderContract):
    """The reader that follows."""

    kind = KafkaLogReader

    async def test_what_is_fetched_ahead_is_bounded_and_whole(
        self, facts: KafkaFactLog, reader: KafkaLogReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Partitions that nobody reads for a while are neither lost nor fetched for ever."""
        monkeypatch.setattr(kafka_reader, "_AHEAD", 20)
        bodies = [envelope() for _ in range(300)]
        for lane in range(LANES):
            await asyncio.gather(*(facts.append(lane, body) for body in bodies))
        offsets = [0] * LANES
        while min(offsets) < 300:
            for lane in (0, 0, 0, 1, 2):
                found = reader.read(lane, offsets[lane], 7)
                assert [record.value for record in found] == bodies[offsets[lane] : offsets[lane] + len(found)]
                assert 0 < len(found) <= 7 or offsets[lane] == 300  # fewer may have come by now, none only at the end
                offsets[lane] += len(found)
                assert all(len(each.records) < 2 * 20 + 7 for each in reader._lanes)


class TestReadInBulk(ReaderContract):
    """The reader of whoever folds everything."""

    kind = KafkaBulkReader

    async def test_one_partition_is_followed(self, servers: str) -> None:
        """What is waited for is what is read next: in order, once, wherever else was read meanwhile."""
        topic = new_topic(servers, 1)
        log = KafkaFactLog(servers, topic, patience=20.0)
        reader = KafkaBulkReader(servers, topic, 1, patience=20.0)
        try:
            assert not reader.wait([0], 0.1)
            bodies = [envelope() for _ in range(300)]
            appending = asyncio.gather(*(log.append(0, body) for body in bodies))
            offset = 0
            while offset < 300:
                assert await asyncio.to_thread(reader.wait, [offset], PATIENCE)
                assert await asyncio.to_thread(reader.wait, [offset], PATIENCE)
                if offset > 5 and offset % 3 == 0:
                    assert [record.value for record in reader.read(0, 4, 2)] == bodies[4:6]
                found = reader.read(0, offset, 7)
                assert [record.offset for record in found] == list(range(offset, offset + len(found)))
                assert [record.value for record in found] == bodies[offset : offset + len(found)]
                offset += len(found)
            await appending
            assert not reader.wait([300], 0.1)
            assert reader.ends() == [300]
        finally:
            reader.close()
            await log.close()

    async def test_what_was_waited_for_is_not_passed_over_by_a_failure(self, servers: str) -> None:
        """A read that fails behind it reads it again."""
        topic = new_topic(servers, 1)
        log = KafkaFactLog(servers, topic, patience=20.0)
        reader = KafkaBulkReader(servers, topic, 1, patience=20.0)
        try:
            await asyncio.gather(*(log.append(0, envelope()) for _ in range(5)))
            assert reader.wait([0], PATIENCE)
            used = reader._lanes[0]._consumer
            reader._lanes[0]._consumer = FailsOnce(used)  # type: ignore[assignment]
            with pytest.raises(LogUnavailable):
                reader.read(0, 0, 10)
            found = reader.read(0, 0, 10)
            assert found[0].offset == 0
        finally:
            reader.close()
            await log.close()


class FailsOnce:
    """A consumer whose next batch cannot be had."""

    def __init__(self, used: Any) -> None:
        self._used, self._failed = used, False

    def consume(self, number: int, timeout: float) -> Any:
        if not self._failed:
            self._failed = True
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return self._used.consume(number, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._used, name)


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


class TestLeaders:
    """A broker that stood still finds itself replaced when it goes on."""

    @pytest.mark.filterwarnings(
        "ignore:Exception ignored in.*socket"
    )  # of kafka-python, which gives up on who stands still
    @pytest.mark.parametrize("kind", [KafkaLogReader, KafkaBulkReader])
    async def test_readers_find_the_new_leader(
        self, stack_of_three: Stack, kind: type[KafkaLogReader | KafkaBulkReader]
    ) -> None:
        """The old one answers again, that it leads no more: whoever read from it asks the new one."""
        stack_of_three.up()
        servers = stack_of_three.urls["kafka"]
        name = new_topic(servers, 1)
        reader = kind(servers, name, 1, patience=1.5)
        try:
            assert not await asyncio.to_thread(reader.wait, [0], 0.1)
            assert await asyncio.to_thread(reader.ends) == [0]
            old = leader(servers, name)
            await asyncio.to_thread(stack_of_three.pause, f"kafka-{old}")
            try:
                others = ",".join(each for number, each in enumerate(servers.split(","), 1) if number != old)
                await until(lambda: leader(others, name) not in (old, -1), "another leader")
            finally:
                await asyncio.to_thread(stack_of_three.resume, f"kafka-{old}")
            itself = servers.split(",")[old - 1]
            await until(lambda: leader(itself, name) not in (old, -1), "the old leader to know")
            await until(lambda: _answers(reader), "an answer of the new leader", 15.0)
        finally:
            reader.close()


def _answers(reader: LogReader) -> bool:
    try:
        reader.wait([0], 0.05)
        return reader.ends() == [0]
    except LogUnavailable:
        return False


def test_a_question_that_was_not_answered_is_asked_on_another_connection(
    servers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python may go on asking a broker that leads no more, for ever: its connection is given up with the question."""
    asked: list[object] = []
    end_offsets = KafkaConsumer.end_offsets

    def stuck_at_first(self: object, *args: object, **options: object) -> object:
        asked.append(self)
        if self is asked[0]:
            raise KafkaTimeoutError
        return end_offsets(self, *args, **options)

    monkeypatch.setattr(KafkaConsumer, "end_offsets", stuck_at_first)
    reader = KafkaLogReader(servers, topic, LANES)
    try:
        with pytest.raises(LogUnavailable):
            reader.ends()
        assert reader.ends() == [0] * LANES
    finally:
        reader.close()
