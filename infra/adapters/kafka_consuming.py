"""confluent-kafka's consumer without a consumer group: whoever reads says where."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from domain.errors import LogUnavailable
from infra.adapters.kafka_headers import linked
from projections.ports import Record

_LONG_POLL_MS = 100
_FULL_MS = 10
"""When a full queue is looked at again; librdkafka's own second is longer than a batch takes."""

_POLL_SECONDS = 0.05
_RECONNECT_MS, _RECONNECT_MAX_MS = 20, 500

_log = logging.getLogger("tollhouse.kafka")


def consumer(servers: str, name: str, **more: Any) -> Consumer:
    """One that connects when it is used. `more` are librdkafka's settings, with _ for each dot."""
    settings = {
        "bootstrap.servers": servers,
        "client.id": f"tollhouse-{name}",
        "group.id": f"tollhouse-{name}",  # librdkafka wants one; nothing is ever committed to it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",  # an offset that is gone is an error, never another offset
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": _LONG_POLL_MS,
        "fetch.queue.backoff.ms": _FULL_MS,
        "reconnect.backoff.ms": _RECONNECT_MS,
        "reconnect.backoff.max.ms": _RECONNECT_MAX_MS,
    }
    return Consumer(settings | {name.replace("_", "."): value for name, value in more.items()}, logger=_log)


def taken(used: Consumer, wanted: int, patience: float) -> list[Message]:
    """At least one message and at most `wanted`, of what is assigned: so many are there. Raises `KafkaException`."""
    deadline = monotonic() + patience
    while True:
        found = used.consume(wanted, _POLL_SECONDS)
        if found:
            return [sound(message) for message in found]
        if monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def sound(message: Message) -> Message:
    """`message`, if it is one and not an error. Raises `KafkaException`."""
    if (error := message.error()) is not None:
        raise KafkaException(error)
    return message


def records(partition: int, messages: Sequence[Message], *, chained: bool) -> list[Record]:
    """What was taken of a partition, as ours; `chained`: with the links of control records."""
    if chained:
        return [Record(partition, m.offset(), m.value() or b"", *linked(m.headers() or ())) for m in messages]  # type: ignore[arg-type]  # what is received has an offset, bytes and a list of headers
    return [Record(partition, m.offset(), m.value() or b"") for m in messages]  # type: ignore[arg-type]  # as above


@contextmanager
def answering() -> Iterator[None]:
    """What Kafka does not answer is `LogUnavailable`."""
    try:
        yield
    except KafkaException as error:
        raise LogUnavailable(f"Kafka cannot be read: {error.args[0]}") from error
