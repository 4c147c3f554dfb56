"""Where a topic ends, and single records of it: what the freshness of a view takes, asked with every read.

Guarantees: as `kafka_reader`. A question costs a tenth of the CPU that it costs there; nothing is fetched between questions.
"""

import threading
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

from domain.ids import PARTITIONS
from infra.adapters.kafka_consuming import answering, consumer, records, taken
from projections.ports import FACTS, Record

PATIENCE = 2.0
"""Seconds a broker may take to answer."""

_FETCH_BYTES = 1 << 16
_WAIT_MS = 1
"""How long a broker waits for more, and the next question with it: librdkafka fetches on behind what was asked for."""


class KafkaTail:
    """`projections.reads.freshness.Tail` of one topic. It connects when it is first asked. `close` when nobody asks any more."""

    def __init__(self, servers: str, topic: str, partitions: int | None = None, patience: float = PATIENCE) -> None:
        self.topic = topic
        self.partitions = partitions or (PARTITIONS if topic == FACTS else 1)
        self._servers, self._patience = servers, patience
        self._consumer: Consumer | None = None
        self._connecting, self._reading = threading.Lock(), threading.Lock()

    def end(self, partition: int) -> int:
        """See `Tail`."""
        with answering():
            _, end = self._used().get_watermark_offsets(TopicPartition(self.topic, partition), timeout=self._patience)
        return end

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """See `Tail`."""
        if offset >= self.end(partition):
            return ()
        with self._reading, answering():
            used = self._used()
            used.assign([TopicPartition(self.topic, partition, offset)])
            try:
                found = taken(used, limit, self._patience)
            finally:
                used.unassign()
        return records(partition, found, chained=self.topic != FACTS)

    def close(self) -> None:
        """Gives up what it holds open."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _used(self) -> Consumer:
        with self._connecting:
            if self._consumer is None:
                self._consumer = consumer(
                    self._servers,
                    "tail",
                    fetch_message_max_bytes=_FETCH_BYTES,
                    fetch_wait_max_ms=_WAIT_MS,
                    queued_min_messages=1,
                )
            return self._consumer
