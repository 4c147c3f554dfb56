"""The control topic on Kafka, as the relay writes it.

Guarantees: a forward succeeds only if every record of it was acknowledged, each behind the one it is chained to; after a failure
the producer is given up with everything in it. So whatever it, or a leader that was replaced, still sends, the chain that readers
accept is exact.
Not guaranteed: after `LogUnavailable` a batch may still come into the topic, also after others; readers ignore it then.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from commands.ports import Stored
from infra.adapters.kafka_headers import describe, link
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.kafka_writer import KafkaWriter
from projections.ports import CONTROL, Record

PATIENCE = 2.0
"""Seconds within which a batch is acknowledged or given up (and up to one more, librdkafka's clock)."""

TAIL = 2_000
"""Records at the end of the topic in which a starting leader looks for the end of the chain."""

_BATCH_BYTES = 512 * 1024
_RECORD_OVERHEAD = 512


Landed = Callable[[Sequence[Record]], None]
"""Told which records are in the topic now, in their order; an offset below 0 is not known."""


def nobody(records: Sequence[Record]) -> None:
    """Nobody wants to know."""


class KafkaControlLog:
    """`ControlLog`. It connects when it is first used, so brokers may come later; `close` when done."""

    def __init__(
        self,
        servers: str,
        topic: str = CONTROL,
        patience: float = PATIENCE,
        landed: Landed = nobody,
    ) -> None:
        self._servers, self._topic, self._patience = servers, topic, patience
        self._landed = landed
        self._writer: KafkaWriter | None = None

    async def tail(self) -> int:
        """See `commands.ports.ControlLog`."""
        self._connected()
        return await asyncio.to_thread(self._tail)

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        """See `commands.ports.ControlLog`."""
        for batch in _batches(events):
            await self._send(previous, batch)
            previous = batch[-1].position

    async def close(self) -> None:
        """Waits for what is in flight, then ends."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.to_thread(writer.end)

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

    def _connected(self) -> KafkaWriter:
        if self._writer is None:
            self._writer = KafkaWriter(self._servers, "tollhouse-control", self._patience)
        return self._writer

    async def _send(self, previous: int, batch: Sequence[Stored]) -> None:
        writer, waits, first = self._connected(), [], previous
        for event in batch:
            key, headers = describe(event.body)
            headers = link(event.position, previous) + headers
            waits.append(writer.append(self._topic, 0, event.body, key, headers))
            previous = event.position
        try:
            offsets = await asyncio.gather(*waits)
        except BaseException:  # also when nobody waits any more: what is in it must not go ahead of what comes next
            writer.abandon()
            self._writer = None
            raise
        chain = [first, *(event.position for event in batch)]
        self._landed(
            [
                Record(0, offset, event.body, event.position, before)
                for offset, event, before in zip(offsets, batch, chain, strict=False)
            ]
        )


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
    """Events in order, so many at a time as the producer takes."""
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
