"""Reads a topic from Kafka in bulk, for whoever folds all of it: a sixth of the CPU a record costs in `kafka_reader`.

Guarantees: as `kafka_reader`. librdkafka fetches ahead of what is read, in threads of its own, one consumer to a partition,
so that no partition's records wait behind another's.
"""

from collections.abc import Sequence
from time import monotonic

from confluent_kafka import Consumer, KafkaException, TopicPartition

from domain.ids import PARTITIONS
from infra.adapters.kafka_consuming import answering, consumer, taken
from infra.adapters.kafka_headers import linked
from projections.ports import CONTROL, FACTS, Record

PATIENCE = 5.0
"""Seconds a broker may take to answer; the first answer comes after a look at the whole cluster."""

_AHEAD_KBYTES = 16_384
_FETCH_BYTES = 4 << 20


class KafkaBulkReader:
    """`projections.ports.LogReader` of one topic. It connects at the first question."""

    def __init__(self, servers: str, topic: str, partitions: int | None = None, patience: float = PATIENCE) -> None:
        self.topic = topic
        self.partitions = partitions or (PARTITIONS if topic == FACTS else 1)
        self._patience = patience
        self._lanes = [_Lane(servers, topic, partition, patience) for partition in range(self.partitions)]

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """See `LogReader`."""
        with answering():
            return self._lanes[partition].read(offset, limit)

    def ends(self) -> Sequence[int]:
        """See `LogReader`."""
        with answering():
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


class _Lane:
    """One partition; `_at` is the offset that its consumer gives next."""

    def __init__(self, servers: str, topic: str, partition: int, patience: float) -> None:
        self._servers, self._place, self._patience = servers, (topic, partition), patience
        self._chained = topic == CONTROL
        self._consumer: Consumer | None = None
        self._at, self._end = -1, 0

    def read(self, offset: int, limit: int) -> Sequence[Record]:
        if offset >= self._end and offset >= self.ask_end():
            return ()
        if offset != self._at:
            self._used().assign([TopicPartition(*self._place, offset)])
            self._at = offset
        try:
            messages = taken(self._used(), min(limit, self._end - offset), self._patience)
        except KafkaException:
            self._at = -1
            raise
        place = self._place[1]
        if self._chained:
            records = [Record(place, m.offset(), m.value() or b"", *linked(m.headers() or ())) for m in messages]  # type: ignore[arg-type]  # what is received has an offset, bytes and a list of headers
        else:
            records = [Record(place, m.offset(), m.value() or b"") for m in messages]  # type: ignore[arg-type]  # as above
        self._at = records[-1].offset + 1
        return records

    def ask_end(self) -> int:
        _, self._end = self._used().get_watermark_offsets(TopicPartition(*self._place), timeout=self._patience)
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
