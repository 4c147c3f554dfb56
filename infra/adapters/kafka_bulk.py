"""Reads a topic from Kafka in bulk, for whoever folds all of it: a sixth of the CPU a record costs in `kafka_reader`. And follows
a topic of one partition for next to nothing: who waits for what comes next does not wait for Python's other threads.

Guarantees: as `kafka_reader`. librdkafka fetches ahead of what is read, in threads of its own, one consumer to a partition,
so that no partition's records wait behind another's. A partition with a few records only is worth none: those are asked for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from domain.ids import PARTITIONS
from infra.adapters.kafka_consuming import answering, consumer, records, sound, taken
from infra.adapters.kafka_tail import KafkaTail
from projections.ports import FACTS, Record

PATIENCE = 5.0
"""Seconds a broker may take to answer; the first answer comes after a look at the whole cluster."""

FEW = 100
"""Records that cost less than the connection of a consumer of their own."""

_AHEAD_KBYTES = 16_384
_FETCH_BYTES = 4 << 20


class KafkaBulkReader:
    """`projections.ports.LogReader` of one topic. It connects at the first question."""

    def __init__(self, servers: str, topic: str, partitions: int | None = None, patience: float = PATIENCE) -> None:
        self.topic = topic
        self.partitions = partitions or (PARTITIONS if topic == FACTS else 1)
        self._tail = KafkaTail(servers, topic, self.partitions, patience)
        self._lanes = [_Lane(servers, self._tail, partition, patience) for partition in range(self.partitions)]

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """See `LogReader`."""
        with answering():
            return self._lanes[partition].read(offset, limit)

    def ends(self) -> Sequence[int]:
        """See `LogReader`."""
        return [lane.ask_end() for lane in self._lanes]

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        """See `LogReader`. Of several partitions it asks again and again: whoever waits much for those has `kafka_reader`."""
        if self.partitions == 1:
            with answering():
                return self._lanes[0].wait(seen[0], timeout)
        deadline = monotonic() + timeout
        while not any(end > known for end, known in zip(self.ends(), seen, strict=True)):
            if monotonic() > deadline:
                return False
        return True

    def close(self) -> None:
        """See `LogReader`."""
        for lane in self._lanes:
            lane.close()
        self._tail.close()


class _Lane:
    """One partition; `_at` is the offset that comes next, from the message that is `_kept` on if one was waited for."""

    def __init__(self, servers: str, tail: KafkaTail, partition: int, patience: float) -> None:
        self._servers, self._tail, self._partition, self._patience = servers, tail, partition, patience
        self._consumer: Consumer | None = None
        self._kept: Message | None = None
        self._at, self._end = -1, 0

    def read(self, offset: int, limit: int) -> Sequence[Record]:
        if self._kept is not None and self._at == offset:
            kept, self._kept = self._kept, None
            with self._going_on():
                messages = [kept, *(sound(message) for message in self._used().consume(limit - 1, 0))]
        elif offset >= self._end and offset >= self.ask_end():
            return ()
        elif self._consumer is None and self._end - offset <= FEW:
            return self._tail.read(self._partition, offset, limit)
        else:
            self._turn_to(offset)
            with self._going_on():
                messages = taken(self._used(), min(limit, self._end - offset), self._patience)
        found = records(self._partition, messages, chained=self._tail.topic != FACTS)
        self._at = found[-1].offset + 1
        return found

    def wait(self, offset: int, timeout: float) -> bool:
        if self._consumer is None:
            self.ask_end()  # somebody has to answer before anything is waited for
        self._turn_to(offset)
        if self._kept is None:
            with self._going_on():
                message = self._used().poll(timeout)
                self._kept = None if message is None else sound(message)
        return self._kept is not None

    def ask_end(self) -> int:
        self._end = self._tail.end(self._partition)
        return self._end

    def _turn_to(self, offset: int) -> None:
        if offset != self._at:
            self._used().assign([TopicPartition(self._tail.topic, self._partition, offset)])
            self._at, self._kept = offset, None

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """After what fails, the next question is asked anew."""
        try:
            yield
        except KafkaException:
            self._at = -1
            raise

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _used(self) -> Consumer:
        if self._consumer is None:
            self._consumer = consumer(
                self._servers,
                "bulk",
                queued_max_messages_kbytes=_AHEAD_KBYTES,
                fetch_message_max_bytes=_FETCH_BYTES,
            )
        return self._consumer
