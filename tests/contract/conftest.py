"""A broker, and a topic of its own for each test of Kafka."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from infra.adapters.kafka_facts import KafkaFactLog
from infra.stack import Stack
from tests.contract.kafka_house import LANES, new_topic


@pytest.fixture
def servers(stack: Stack) -> str:
    """A broker that answers, whatever the test before did to it."""
    stack.up()
    return stack.urls["kafka"]


@pytest.fixture
def topic(servers: str) -> str:
    return new_topic(servers, LANES)


@pytest_asyncio.fixture
async def facts(servers: str, topic: str) -> AsyncIterator[KafkaFactLog]:
    log = KafkaFactLog(servers, topic, patience=20.0)
    yield log
    await log.close()
