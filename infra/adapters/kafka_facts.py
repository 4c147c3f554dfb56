"""The facts topic on Kafka, as the gateway writes it: acknowledged by all in-sync replicas, idempotent, bounded in time.

Guarantees: an awaited append is on `min.insync.replicas` brokers; order of calls is order in a partition; an append that gets
no acknowledgement within `patience` seconds (and up to one more, librdkafka's clock) raises `LogUnavailable`, and appends go
through again once the brokers do. While no append fails, none is doubled.
Not guaranteed: after `LogUnavailable` a record may still be in the log, or come into it behind later ones; and what was in
flight in its partition then may be there twice, acknowledged at the later place: librdkafka repeats it under a new identity.
"""

import asyncio
import logging

from infra.adapters.kafka_headers import describe
from infra.adapters.kafka_writer import KafkaWriter
from projections.ports import FACTS

PATIENCE = 2.0
"""Seconds: no admission is dispatched on an acknowledgement that took longer."""

_log = logging.getLogger("tollhouse.kafka")


class KafkaFactLog:
    """`FactLog`. Create and use it on one event loop; `close` when done. It connects by itself, so brokers may come later."""

    def __init__(self, servers: str, topic: str = FACTS, patience: float = PATIENCE) -> None:
        self._servers, self._topic, self._patience = servers, topic, patience
        self._writer = self._made()

    def append(self, partition: int, body: bytes) -> "asyncio.Future[int]":
        """See `commands.ports.FactLog`."""
        key, headers = describe(body)
        if self._writer.broken:
            self._replace()
        return self._writer.append(self._topic, partition, body, key, headers)

    async def close(self) -> None:
        """Waits for what is in flight, up to its deadline, then ends. Nothing may be appended any more."""
        await asyncio.to_thread(self._writer.end)

    def _made(self) -> KafkaWriter:
        return KafkaWriter(self._servers, "tollhouse-facts", self._patience)

    def _replace(self) -> None:
        """What the broken one held has failed by now."""
        _log.warning("the producer of facts gave up; making a new one")
        self._writer.abandon()
        self._writer = self._made()
