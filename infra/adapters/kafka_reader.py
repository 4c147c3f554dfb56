"""Reads a topic from Kafka, without a consumer group: whoever reads knows where it is.

Guarantees: records of a partition come in order and none is passed over (the topics have no transactions, so offsets have no
holes); an offset that is no longer there, or a broker that does not answer within `patience` seconds, raises `LogUnavailable`;
once brokers answer again, so does the reader. Not guaranteed: that `ends` of a broker that was cut off from the others, and does
not know it yet, is the end that those have.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from domain.errors import LogUnavailable
from domain.ids import PARTITIONS
from infra.adapters.kafka_clients import connect
from infra.adapters.kafka_headers import linked
from projections.ports import FACTS, Record

PATIENCE = 2.0
"""Seconds a broker may take to answer."""

_PARTITION_BYTES = 1 << 20
_FETCH_BYTES = 8 << 20
_LONG_POLL_MS = 100
_AHEAD = 10_000


class _Lane:
    """What was fetched of one partition and not yet read; `offset` is that of the next record to be read."""

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.offset = -1
        self.end = 0
        self.records: deque[Record] = deque()
        self.followed = False


class KafkaLogReader:
    """`projections.ports.LogReader` of one topic. It connects at the first question, so brokers may come later."""

    def __init__(self, servers: str, topic: str, partitions: int | None = None, patience: float = PATIENCE) -> None:
        self.topic = topic
        self.partitions = partitions or (PARTITIONS if topic == FACTS else 1)
        self._servers, self._patience = servers, patience
        self._lanes = [_Lane(TopicPartition(topic, partition)) for partition in range(self.partitions)]
        self._fetching = _Connection(self._connect)
        self._asking = _Connection(self._connect)  # a broker answers in order: a question would wait behind a long poll

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """See `LogReader`."""
        lane = self._lanes[partition]
        self._turn_to(lane, offset)
        if not lane.records and offset >= lane.end:
            lane.end = self._ends([lane.partition])[lane.partition]
        deadline = monotonic() + self._patience
        while not lane.records and offset < lane.end:
            left = deadline - monotonic()
            if left <= 0:
                raise LogUnavailable(f"Kafka did not answer a read of {self.topic} within {self._patience} s")
            self._fetch(min(left, _LONG_POLL_MS / 1000), limit)
        found = [lane.records.popleft() for _ in range(min(limit, len(lane.records)))]
        lane.offset = offset + len(found)
        self._balance(lane)
        return found

    def ends(self) -> Sequence[int]:
        """See `LogReader`."""
        ends = self._ends([lane.partition for lane in self._lanes])
        for lane in self._lanes:
            lane.end = ends[lane.partition]
        return [lane.end for lane in self._lanes]

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        """See `LogReader`. What comes meanwhile is kept for `read`."""
        deadline = monotonic() + timeout
        for lane, offset in zip(self._lanes, seen, strict=True):
            self._turn_to(lane, offset)
        while not any(lane.records for lane in self._lanes):
            left = deadline - monotonic()
            if left <= 0:
                return False
            self._fetch(left, _AHEAD)
        return True

    def close(self) -> None:
        """See `LogReader`."""
        self._fetching.close()
        self._asking.close()

    def _connect(self) -> Any:
        return connect(
            KafkaConsumer,
            self._servers,
            self._patience,
            client_id="tollhouse-reader",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",  # an offset that is gone is an error, never another offset
            allow_auto_create_topics=False,
            fetch_max_wait_ms=_LONG_POLL_MS,
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_PARTITION_BYTES,
            metrics_enabled=False,
        )

    def _turn_to(self, lane: _Lane, offset: int) -> None:
        """Makes `offset` the next one of the lane; what was fetched for another place is of no use."""
        if lane.offset != offset:
            lane.offset, lane.followed = offset, False
            lane.records.clear()
        if not lane.followed and not lane.records:
            self._follow(lane)

    def _follow(self, lane: _Lane) -> None:
        """Fetches on behind what the lane has."""
        with self._fetching.use() as consumer:
            lane.followed = True
            try:
                self._assign(consumer)
                consumer.seek(lane.partition, lane.offset + len(lane.records))
            except BaseException:
                lane.followed = False  # else nobody would ask again
                raise

    def _balance(self, lane: _Lane) -> None:
        """Lets a lane wait that has enough. (A paused partition is not resumed reliably by kafka-python 3.0.)"""
        if lane.followed and len(lane.records) >= _AHEAD:
            lane.followed = False
            with self._fetching.use() as consumer:
                self._assign(consumer)
        elif not lane.followed and len(lane.records) < _AHEAD // 2:
            self._follow(lane)

    def _assign(self, consumer: Any) -> None:
        consumer.assign([lane.partition for lane in self._lanes if lane.followed])

    def _fetch(self, seconds: float, limit: int) -> None:
        """Takes in what arrives within `seconds`, of any partition."""
        with self._fetching.use() as consumer:
            fetched = consumer.poll(timeout_ms=int(seconds * 1000) + 1, max_records=max(limit, 1))
        for partition, records in fetched.items():
            lane = self._lanes[partition.partition]
            lane.records += [
                Record(record.partition, record.offset, record.value, *linked(record.headers)) for record in records
            ]
            self._balance(lane)

    def _ends(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        with self._asking.use() as consumer:
            try:
                ends: dict[TopicPartition, int] = consumer.end_offsets(
                    partitions, timeout_ms=int(self._patience * 1000)
                )
            except KafkaTimeoutError:
                # kafka-python 3.0 asks a broker that leads no more again and again, without looking who does
                self._asking.close()
                raise
        return ends


class _Connection:
    """A consumer that is made when it is first needed."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._consumer: Any = None

    @contextmanager
    def use(self) -> Iterator[Any]:
        try:
            if self._consumer is None:
                self._consumer = self._connect()
            yield self._consumer
        except KafkaError as error:
            raise LogUnavailable(f"Kafka cannot be read: {error!r}") from error

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
