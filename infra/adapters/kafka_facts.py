"""The facts topic on Kafka, as the gateway writes it: acknowledged by all in-sync replicas, idempotent, bounded in time.

Guarantees: an awaited append is on `min.insync.replicas` brokers; order of calls is order in a partition; an append that gets
no acknowledgement within `patience` seconds (and up to one more, librdkafka's clock) raises `LogUnavailable`, and appends go
through again once the brokers do. While no append fails, none is doubled.
Not guaranteed: after `LogUnavailable` a record may still be in the log, or come into it behind later ones; and what was in
flight in its partition then may be there twice, acknowledged at the later place: librdkafka repeats it under a new identity.
"""

import asyncio
import logging
import threading
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from domain.errors import LogUnavailable
from infra.adapters.kafka_headers import Headers, Traceparent, describe, no_trace
from projections.ports import FACTS

PATIENCE = 2.0
"""Seconds: no admission is dispatched on an acknowledgement that took longer."""

_LINGER_MS = 0.2
_POLL_SECONDS = 0.1
_REPORTS = 1000
_QUEUED_RECORDS, _QUEUED_KBYTES = 50_000, 65_536
_RECONNECT_MS, _RECONNECT_MAX_MS = 20, 500

_log = logging.getLogger("tollhouse.kafka")
_Future = asyncio.Future[int]
_Report = tuple[_Future, KafkaError | None, int]


class KafkaFactLog:
    """`FactLog`. Create and use it on one event loop; `close` when done. It connects by itself, so brokers may come later."""

    def __init__(
        self, servers: str, topic: str = FACTS, patience: float = PATIENCE, traceparent: Traceparent = no_trace
    ) -> None:
        self._topic, self._patience, self._traceparent = topic, patience, traceparent
        self._settings = {
            "bootstrap.servers": servers,
            "client.id": "tollhouse-facts",
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "message.timeout.ms": int(patience * 1000),
            "linger.ms": _LINGER_MS,
            "queue.buffering.max.messages": _QUEUED_RECORDS,
            "queue.buffering.max.kbytes": _QUEUED_KBYTES,
            "reconnect.backoff.ms": _RECONNECT_MS,
            "reconnect.backoff.max.ms": _RECONNECT_MAX_MS,
            "retry.backoff.ms": _RECONNECT_MS,
            "socket.nagle.disable": True,
            "allow.auto.create.topics": False,
        }
        self._loop = asyncio.get_running_loop()
        self._writer = _Writer(self._settings, self._loop, patience)

    def append(self, partition: int, body: bytes) -> "asyncio.Future[int]":
        """See `commands.ports.FactLog`."""
        future: _Future = self._loop.create_future()
        key, headers = describe(body, self._traceparent())
        if self._writer.broken:
            self._replace()
        try:
            self._writer.produce(self._topic, body, key, partition, headers, future)
        except BufferError:
            future.set_exception(LogUnavailable("the log takes no more for now: too many records wait for Kafka"))
        except KafkaException as error:
            self._writer.saw(error.args[0])
            future.set_exception(_unavailable(error.args[0]))
        return future

    async def close(self) -> None:
        """Waits for what is in flight, up to its deadline, then ends. Nothing may be appended any more."""
        await asyncio.to_thread(self._writer.end)

    def _replace(self) -> None:
        """librdkafka gives a producer up when the brokers contradict what it knows they had. What it held has failed by then."""
        _log.warning("the producer of facts gave up; making a new one")
        self._writer.abandon()
        self._writer = _Writer(self._settings, self._loop, self._patience)


class _Writer:
    """One producer and the thread that takes its reports to the loop: those that come together in one call."""

    def __init__(self, settings: dict[str, object], loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self.broken = False
        self._loop, self._patience = loop, patience
        self._producer = Producer(settings, logger=_log)
        self._reports: list[_Report] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka-facts", daemon=True)
        self._thread.start()

    def produce(
        self,
        topic: str,
        body: bytes,
        key: bytes | None,
        partition: int,
        headers: Headers,
        future: _Future,
    ) -> None:
        """Raises `BufferError` and `KafkaException`."""
        self._producer.produce(
            topic, body, key, partition, headers=headers, on_delivery=partial(self._reported, future)
        )

    def saw(self, error: KafkaError) -> None:
        self.broken |= error.fatal()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()

    def abandon(self) -> None:
        """Fails what it holds and ends soon, without being waited for."""
        self._producer.purge()
        self._ending.set()

    def _serve(self) -> None:
        while not self._ending.is_set():
            if self._producer.poll(_POLL_SECONDS):
                while len(self._reports) < _REPORTS and self._producer.poll(0):
                    pass  # what has come meanwhile goes along: each call to the loop costs more than many reports
            self._deliver()
        self._producer.flush(self._patience + 1)
        self._producer.purge()
        self._producer.flush(_POLL_SECONDS)
        self._deliver()

    def _reported(self, future: _Future, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.saw(error)
        offset = message.offset()
        self._reports.append((future, error, -1 if offset is None else offset))

    def _deliver(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            self._loop.call_soon_threadsafe(_resolve, reports)


def _resolve(reports: list[_Report]) -> None:
    for future, error, offset in reports:
        if future.done():
            continue
        if error is None:
            future.set_result(offset)
        else:
            future.set_exception(_unavailable(error))


def _unavailable(error: KafkaError) -> LogUnavailable:
    return LogUnavailable(f"Kafka did not take the record: {error.str()}")
