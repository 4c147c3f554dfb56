"""Readers of a real Kafka: what they find, wait for and follow, and brokers that cannot be reached or lead no more."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from domain.errors import LogUnavailable
from infra.adapters import kafka_reader
from infra.adapters.kafka_bulk import KafkaBulkReader
from infra.adapters.kafka_facts import KafkaFactLog
from infra.adapters.kafka_reader import KafkaLogReader
from infra.stack import Stack
from projections.ports import LogReader
from tests.contract.kafka_house import (
    BROKER,
    LANES,
    admin,
    envelope,
    leader,
    new_topic,
)
from tests.waiting import PATIENCE, until

NOBODY = "127.0.0.1:1"


@pytest.fixture
def reader(request: pytest.FixtureRequest, servers: str, topic: str) -> Iterator[LogReader]:
    made = request.cls.kind(servers, topic, LANES, patience=20.0)
    yield made
    made.close()


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
