"""The topics of an installation: made once, with everything explicit that the promises rest on, and checked at each start.

Guarantees: what exists is never changed; a topic that differs in what the promises rest on is refused, naming what differs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import msgspec
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from domain.errors import Conflict, LogUnavailable
from domain.ids import PARTITIONS
from infra.adapters.kafka_clients import connect
from projections.ports import CONTROL, FACTS

PARKED = "tollhouse.parked.v1"
"""Topic of dead letters. Stored format."""

COPIES = 3
"""Brokers a record is on, where there are so many."""

PATIENCE = 10.0
"""Seconds Kafka may take for the answer to an administrator."""

_KEPT_FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
_NEVER_LOSING = {"unclean.leader.election.enable": "false"}
_AGAIN_SECONDS = 0.05
_MIN_ISR = "min.insync.replicas"


class Topic(msgspec.Struct, frozen=True):
    """A topic as it must be."""

    name: str
    partitions: int


TOPICS = (Topic(CONTROL, 1), Topic(FACTS, PARTITIONS), Topic(PARKED, 1))


class _Found(msgspec.Struct):
    partitions: int
    copies: int
    settings: dict[str, str]


def create_topics(servers: str, topics: Sequence[Topic] = TOPICS) -> list[str]:
    """Makes the topics that are missing and answers their names; a second call changes nothing.

    Raises `Conflict` (``topic_differs``) if one that exists is not as it must be, `LogUnavailable` if Kafka does not answer.
    """
    with _administration(servers) as admin:
        brokers = len(admin.describe_cluster()["brokers"])
        existing = set(admin.list_topics())
        copies = min(COPIES, brokers)
        settings = {**_KEPT_FOR_EVER, **_NEVER_LOSING, _MIN_ISR: str(_acknowledged(copies))}
        missing = [topic for topic in topics if topic.name not in existing]
        for topic in missing:
            wanted = {"num_partitions": topic.partitions, "replication_factor": copies, "configs": settings}
            try:
                admin.create_topics({topic.name: wanted})
            except TopicAlreadyExistsError:
                continue  # somebody else was first: whether theirs is right is seen below
        admin.wait_for_topics([topic.name for topic in topics], timeout_ms=int(PATIENCE * 1000))
        deadline = monotonic() + (PATIENCE if missing else 0.0)  # a broker may not have heard of a new topic yet
        while wrong := _problems(admin, topics):
            if monotonic() > deadline:
                raise Conflict("; ".join(wrong), code="topic_differs")
            sleep(_AGAIN_SECONDS)
    return [topic.name for topic in missing]


def check_topics(servers: str, topics: Sequence[Topic] = TOPICS, patience: float = PATIENCE) -> list[str]:
    """What is wrong with the topics, a line each; empty if nothing is. Raises `LogUnavailable` if Kafka does not answer within
    `patience` seconds."""
    with _administration(servers, patience) as admin:
        return _problems(admin, topics)


def _problems(admin: Any, topics: Sequence[Topic]) -> list[str]:
    brokers = len(admin.describe_cluster()["brokers"])
    found = _describe(admin, [topic.name for topic in topics])
    return [line for topic in topics for line in _differences(topic, found.get(topic.name), brokers)]


def _differences(topic: Topic, found: _Found | None, brokers: int) -> Iterator[str]:
    if found is None:
        yield f"topic {topic.name} does not exist"
        return
    if found.partitions != topic.partitions:
        yield (
            f"topic {topic.name} has {found.partitions} partitions and must have {topic.partitions}: "
            "organizations would move between partitions; use another cluster or an empty topic"
        )
    for name, wanted in (_KEPT_FOR_EVER | _NEVER_LOSING).items():
        if found.settings.get(name) != wanted:
            yield f"topic {topic.name} has {name}={found.settings.get(name)} and must have {wanted}"
    if found.copies < min(COPIES, brokers):
        yield f"topic {topic.name} is on {found.copies} of {brokers} brokers and must be on {min(COPIES, brokers)}"
    least = _acknowledged(found.copies)
    if int(found.settings.get(_MIN_ISR, "0")) < least:
        yield f"topic {topic.name} has {_MIN_ISR}={found.settings.get(_MIN_ISR)} and must have at least {least}"


def _acknowledged(copies: int) -> int:
    """On how many brokers a record is once it is acknowledged: the loss of a minority of them loses nothing."""
    return copies // 2 + 1


def _describe(admin: Any, names: Sequence[str]) -> dict[str, _Found]:
    existing = [name for name in admin.list_topics() if name in names]
    if not existing:
        return {}
    settings = _settings(admin, existing)
    return {
        each["name"]: _Found(
            partitions=len(each["partitions"]),
            copies=min(len(partition["replica_nodes"]) for partition in each["partitions"]),
            settings={name: setting["value"] for name, setting in settings[each["name"]].items()},
        )
        for each in admin.describe_topics(existing)
    }


def _settings(admin: Any, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every setting of each topic. A broker that has not heard of a new topic yet answers that it has none: it is asked again."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    deadline = monotonic() + PATIENCE
    while True:
        found: dict[str, dict[str, Any]] = admin.describe_configs(resources, config_filter="all")["topic"]
        if all(found.get(name) for name in names):
            return found
        if monotonic() > deadline:
            raise LogUnavailable(f"Kafka did not tell the settings of its topics within {PATIENCE} s")
        sleep(_AGAIN_SECONDS)


@contextmanager
def _administration(servers: str, patience: float = PATIENCE) -> Iterator[Any]:
    try:
        admin = connect(KafkaAdminClient, servers, patience, client_id="tollhouse-admin")
        try:
            yield admin
        finally:
            admin.close()
    except KafkaError as error:
        raise LogUnavailable(f"Kafka did not answer: {error!r}") from error
