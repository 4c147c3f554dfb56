"""The control topic on Kafka, as the relay writes it.

Guarantees: a record comes into the topic only after the one it is chained to: what is sent together is one batch, which Kafka
takes whole or not at all, and the next batch waits for its acknowledgement; after a failure the producer is given up with
everything in it. So whatever a leader that was replaced still sends, the chain that readers accept is exact.
Not guaranteed: after `LogUnavailable` a batch may still come into the topic, also after others; readers ignore it then.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from commands.ports import Stored
from domain.errors import LogUnavailable
from infra.adapters.kafka_clients import connect
from infra.adapters.kafka_headers import Traceparent, describe, link, no_trace
from infra.adapters.kafka_reader import KafkaLogReader
from projections.ports import CONTROL, Record

PATIENCE = 2.0
"""Seconds within which a batch is acknowledged or given up."""

TAIL = 2_000
"""Records at the end of the topic in which a starting leader looks for the end of the chain."""

_BATCH_BYTES = 512 * 1024
_RECORD_OVERHEAD = 512
_REQUEST_BYTES = 1 << 20
_GIVE_UP_SECONDS = 0.1

_log = logging.getLogger("tollhouse.kafka")


class KafkaControlLog:
    """`ControlLog`. It connects when it is first used, so brokers may come later; `close` when done."""

    def __init__(
        self, servers: str, topic: str = CONTROL, patience: float = PATIENCE, traceparent: Traceparent = no_trace
    ) -> None:
        self._servers, self._topic, self._patience, self._traceparent = servers, topic, patience, traceparent
        self._producer: Any = None
        self._alone = threading.Lock()

    async def tail(self) -> int:
        """See `commands.ports.ControlLog`."""
        return await asyncio.to_thread(self._tail)

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        """See `commands.ports.ControlLog`."""
        await asyncio.to_thread(self._forward, previous, events)

    async def close(self) -> None:
        """Waits for what is in flight, then ends."""
        await asyncio.to_thread(self._close)

    def _tail(self) -> int:
        reader = KafkaLogReader(self._servers, self._topic, 1, self._patience)
        try:
            end = reader.ends()[0]
            found = chain_end(_records(reader, max(0, end - TAIL), end))
            if found is None:
                found = chain_end(_records(reader, 0, end), 0)
            return found or 0
        finally:
            reader.close()

    def _forward(self, previous: int, events: Sequence[Stored]) -> None:
        with self._alone:
            try:
                for batch in _batches(events):
                    self._send(previous, batch)
                    previous = batch[-1].position
            except KafkaError as error:
                self._give_up(_GIVE_UP_SECONDS)
                raise LogUnavailable(f"Kafka did not take the control events: {error!r}") from error

    def _send(self, previous: int, batch: Sequence[Stored]) -> None:
        if self._producer is None:
            self._producer = self._connect()
        waits = []
        for event in batch:
            key, headers = describe(event.body, self._traceparent())
            headers = link(event.position, previous) + headers
            waits.append(self._producer.send(self._topic, event.body, key, headers, partition=0))
            previous = event.position
        self._producer.flush(self._patience * 2)
        for wait in waits:
            wait.get(timeout=self._patience)

    def _connect(self) -> Any:
        milliseconds = int(self._patience * 1000)
        return connect(
            KafkaProducer,
            self._servers,
            self._patience,
            client_id="tollhouse-control",
            enable_idempotence=True,
            acks="all",
            batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
            linger_ms=milliseconds // 2,  # nothing leaves before the flush, so a batch is one
            request_timeout_ms=milliseconds // 2,
            delivery_timeout_ms=milliseconds,
            max_block_ms=milliseconds,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _give_up(self, seconds: float) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.close(timeout=seconds)
        except KafkaError as error:
            _log.warning("the producer of control events leaves records behind: %r", error)

    def _close(self) -> None:
        with self._alone:
            self._give_up(self._patience)


def chain_end(records: Iterator[Record], start: int | None = None) -> int | None:
    """The position of the last record that continues the chain.

    `start`: what was accepted before the first of `records`, 0 at the beginning of the topic. If it is not known, None, the first
    record is taken to be accepted; the answer is None if a later one shows that it may not have been.
    """
    accepted = start
    for record in records:
        if accepted is None or record.previous == accepted:
            accepted = record.position
        elif start is None and record.previous > accepted:
            return None
    return accepted


def _records(reader: KafkaLogReader, offset: int, end: int) -> Iterator[Record]:
    while offset < end:
        for record in reader.read(0, offset, TAIL):
            if record.position:
                yield record
            offset = record.offset + 1


def _batches(events: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    """Events in order, cut so that each batch is one for Kafka too; an event that is too large for that is one of its own."""
    batch: list[Stored] = []
    size = 0
    for event in events:
        added = len(event.body) + _RECORD_OVERHEAD
        if batch and size + added > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += added
    if batch:
        yield batch
