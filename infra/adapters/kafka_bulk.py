"""Reads a topic from Kafka in bulk, for whoever folds all of it: a sixth of the CPU a record costs in `kafka_reader`.

Guarantees: as `kafka_reader`. librdkafka fetches ahead of what is read, in threads of its own, one consumer to a partition,
so that no partition's records wait behind another's. A partition with a few records only is worth none: those are asked for.
"""

from collections.abc import Sequence
from time import monotonic

from confluent_kafka import Consumer, KafkaException, TopicPartition

from domain.ids import PARTITIONS
from infra.adapters.kafka_consuming import answering, consumer, records, taken
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
        """See `LogReader`. Asks again and again: whoever waits much has `kafka_reader`."""
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
    """One partition; `_at` is the offset that its consumer gives next."""

    def __init__(self, servers: str, tail: KafkaTail, partition: int, patience: float) -> None:
        self._servers, self._tail, self._partition, self._patience = servers, tail, partition, patience
        self._consumer: Consumer | None = None
        self._at, self._end = -1, 0

    def read(self, offset: int, limit: int) -> Sequence[Record]:
        if offset >= self._end and offset >= self.ask_end():
            return ()
        if self._consumer is None and self._end - offset <= FEW:
            return self._tail.read(self._partition, offset, limit)
        if offset != self._at:
            self._used().assign([TopicPartition(self._tail.topic, self._partition, offset)])
            self._at = offset
        try:
            messages = taken(self._used(), min(limit, self._end - offset), self._patience)
        except KafkaException:
            self._at = -1
            raise
        found = records(self._partition, messages, chained=self._tail.topic != FACTS)
        self._at = found[-1].offset + 1
        return found

    def ask_end(self) -> int:
        self._end = self._tail.end(self._partition)
        return self._end

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
