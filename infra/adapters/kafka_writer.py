"""One producer of Kafka records on an event loop (librdkafka): idempotent, acknowledged by all in-sync replicas.

Order of calls is order in a partition, as long as no append fails. One that gets no acknowledgement within `patience` seconds
(and up to one more, librdkafka's clock) raises `LogUnavailable`; it may still come into the log, also behind later ones.
"""

import asyncio
import logging
import threading
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from domain.errors import LogUnavailable
from infra.adapters.kafka_headers import Headers

_LINGER_MS = 0.2
_POLL_SECONDS = 0.1
_REPORTS = 1000
_QUEUED_RECORDS, _QUEUED_KBYTES = 50_000, 65_536
_RECORD_BYTES = 1 << 20
_RECONNECT_MS, _RECONNECT_MAX_MS = 20, 500

_log = logging.getLogger("tollhouse.kafka")
_Future = asyncio.Future[int]
_Report = tuple[_Future, KafkaError | None, int]


class KafkaWriter:
    """Make and use it on one event loop. A thread takes the reports to it: those that come together in one call."""

    def __init__(self, servers: str, client: str, patience: float) -> None:
        self.broken = False
        """librdkafka gives a producer up when the brokers contradict what it knows they had: make another one."""
        settings = {
            "bootstrap.servers": servers,
            "client.id": client,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "message.timeout.ms": int(patience * 1000),
            "message.max.bytes": _RECORD_BYTES,
            "linger.ms": _LINGER_MS,
            "queue.buffering.max.messages": _QUEUED_RECORDS,
            "queue.buffering.max.kbytes": _QUEUED_KBYTES,
            "reconnect.backoff.ms": _RECONNECT_MS,
            "reconnect.backoff.max.ms": _RECONNECT_MAX_MS,
            "retry.backoff.ms": _RECONNECT_MS,
            "socket.nagle.disable": True,
            "allow.auto.create.topics": False,
        }
        self._loop, self._patience = asyncio.get_running_loop(), patience
        self._producer = Producer(settings, logger=_log)
        self._reports: list[_Report] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=client, daemon=True)
        self._thread.start()

    def append(self, topic: str, partition: int, body: bytes, key: bytes | None, headers: Headers) -> _Future:
        """Begins to append at once; the awaited answer is the offset. Raises `LogUnavailable` when awaited."""
        future: _Future = self._loop.create_future()
        reported = partial(self._reported, future)
        try:
            self._producer.produce(topic, body, key, partition, headers=headers, on_delivery=reported)
        except BufferError:
            future.set_exception(LogUnavailable("the log takes no more for now: too many records wait for Kafka"))
        except KafkaException as error:
            self._saw(error.args[0])
            future.set_exception(_unavailable(error.args[0]))
        return future

    def end(self) -> None:
        """Waits for what is in flight, up to its deadline, then ends. To be called in a thread."""
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

    def _saw(self, error: KafkaError) -> None:
        self.broken |= error.fatal()

    def _reported(self, future: _Future, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._saw(error)
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
