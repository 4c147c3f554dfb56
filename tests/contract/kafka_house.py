"""Topics of their own on a real Kafka, and what tests do to its broker."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.parser import KafkaProtocol

from domain.envelope import Envelope, encode
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.kafka_topics import Topic, create_topics
from infra.stack import Stack
from infra.stack.kafka.probe import ask
from projections.ports import Record

BROKER = "kafka-1"
LANES = 3
"""Partitions of a topic."""

_METADATA = 9
"""The version of the question that every Kafka 4 knows."""

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

_ids = count(1)


def new_topic(servers: str, partitions: int) -> str:
    """A topic nobody else uses."""
    name = f"test-{uuid4().hex}"
    create_topics(servers, [Topic(name, partitions)])
    return name


def leader(servers: str, topic: str) -> int:
    """The broker that leads the first partition of a topic, as one of `servers` sees it and nobody else; -1 while none of them
    says. A client would ask the brokers that it hears of, too, and wait for those that stand still."""
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False, version=_METADATA
    )
    for server in servers.split(","):
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1.0) as connection:
                (found,) = ask(connection, KafkaProtocol(client_id="test"), request).topics
                if found.partitions and (number := found.partitions[0].leader_id) != -1:
                    return int(number)
        except OSError:
            continue
    return -1


def envelope(org: str = "acme") -> bytes:
    """The bytes of an event that is like no other."""
    number = next(_ids)
    return encode(
        Envelope(
            id=f"evt_{number}",
            type="RequestVoided",
            org=org,
            stream=f"{org}/request/req_{number}",
            occurred_at=NOON,
            actor="system",
            data={"attempt": f"req_{number}"},
        )
    )


def everything(servers: str, topic: str, partitions: int) -> list[list[Record]]:
    """What a new reader finds in each partition."""
    reader = KafkaLogReader(servers, topic, partitions, patience=20.0)
    try:
        return [read_from(reader, partition, 0, end) for partition, end in enumerate(reader.ends())]
    finally:
        reader.close()


def read_from(reader: KafkaLogReader, partition: int, offset: int, end: int) -> list[Record]:
    """The records of a partition from `offset` to before `end`."""
    found: list[Record] = []
    while offset < end:
        found += reader.read(partition, offset, 1000)
        offset = found[-1].offset + 1
    return found


@contextmanager
def consumer(servers: str, topic: str) -> Iterator[Any]:
    """A consumer of Kafka that is not ours, from the beginning of the topic."""
    made = KafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def admin(servers: str) -> Iterator[Any]:
    """Kafka's own administration."""
    made = KafkaAdminClient(bootstrap_servers=servers)
    try:
        yield made
    finally:
        made.close()


async def kill_and_restart(stack: Stack, broker: str = BROKER) -> None:
    """SIGKILL to a broker; returns when it answers again."""
    await asyncio.to_thread(stack.kill, broker)
    await asyncio.to_thread(stack.start, broker)


def accepted(records: Sequence[Record]) -> list[Record]:
    """The records that readers of control accept."""
    chain: list[Record] = []
    for record in records:
        if record.previous == (chain[-1].position if chain else 0):
            chain.append(record)
    return chain
