"""The topics of an installation, on a real Kafka."""

from uuid import uuid4

import pytest

from domain.errors import Conflict, LogUnavailable
from infra.adapters.kafka_topics import TOPICS, Topic, check_topics, create_topics
from infra.stack import Stack
from tests.contract.kafka_house import admin


def test_they_are_made_once(servers: str) -> None:
    """The second time nothing is made; what was made is right; a missing one is named."""
    topics = [Topic(f"test-{uuid4().hex}", topic.partitions) for topic in TOPICS]
    assert check_topics(servers, topics) == [f"topic {topic.name} does not exist" for topic in topics]
    assert create_topics(servers, topics[:1]) == [topics[0].name]
    assert create_topics(servers, topics) == [topic.name for topic in topics[1:]]
    assert create_topics(servers, topics) == check_topics(servers, topics) == []


def test_another_partition_count_is_refused(servers: str) -> None:
    """The error names the topic and both counts, and nothing is changed."""
    name = f"test-{uuid4().hex}"
    create_topics(servers, [Topic(name, 3)])
    with pytest.raises(Conflict, match=f"{name} has 3 partitions and must have 12") as refused:
        create_topics(servers, [Topic(name, 12)])
    assert refused.value.code == "topic_differs"
    assert check_topics(servers, [Topic(name, 3)]) == []


def test_a_topic_that_forgets_is_refused(servers: str) -> None:
    """Retention, compaction and unclean elections that somebody set: each is named with what it must be."""
    name = f"test-{uuid4().hex}"
    forgets = {"retention.ms": "3600000", "cleanup.policy": "compact", "unclean.leader.election.enable": "true"}
    with admin(servers) as kafka:
        kafka.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": forgets}})
        kafka.wait_for_topics([name])
    told = check_topics(servers, [Topic(name, 1)])
    assert [line.removeprefix(f"topic {name} has ") for line in told] == [
        "retention.ms=3600000 and must have -1",
        "cleanup.policy=compact and must have delete",
        "unclean.leader.election.enable=true and must have false",
    ]
    with pytest.raises(Conflict):
        create_topics(servers, [Topic(name, 1)])


def test_three_brokers_get_three_copies(stack_of_three: Stack) -> None:
    """Acknowledged is on two of three; a topic with a single copy, or one acknowledgement, is refused there."""
    servers = stack_of_three.urls["kafka"]
    good, single = Topic(f"test-{uuid4().hex}", 2), Topic(f"test-{uuid4().hex}", 1)
    create_topics(servers, [good])
    with admin(servers) as kafka:
        (described,) = kafka.describe_topics([good.name])
        kafka.create_topics({single.name: {"num_partitions": 1, "replication_factor": 1}})
        kafka.wait_for_topics([single.name])
    assert [len(partition["replica_nodes"]) for partition in described["partitions"]] == [3, 3]
    assert check_topics(servers, [good]) == []
    assert f"topic {single.name} is on 1 of 3 brokers and must be on 3" in check_topics(servers, [single])


def test_an_unreachable_cluster_is_said_so() -> None:
    """After a bounded wait."""
    with pytest.raises(LogUnavailable):
        check_topics("127.0.0.1:1", [Topic("t", 1)], patience=0.3)
