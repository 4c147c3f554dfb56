"""``--full``: also the long forms of attacks (`make faults`). Without it they are deselected, and pytest's summary says so."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from infra.stack import Stack
from tests.lab import Lab
from tests.postgres import PostgresServer, running_postgres
from tests.stack import fresh_stack

settings.register_profile("tollhouse", deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long a machine takes for an example is no property of the product."""
settings.load_profile("tollhouse")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the long forms of the attacks too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    long = [item for item in items if item.get_closest_marker("full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    """The product on an empty folder."""
    async with Lab() as made:
        yield made


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole run. Each test takes a database of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="class")
def postgres_class(request: pytest.FixtureRequest, postgres: PostgresServer) -> None:
    """The same, as the attribute `postgres` of a test class."""
    request.cls.postgres = postgres


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One broker, PostgreSQL, Redis and ClickHouse for the whole run. A test that breaks one calls `up()` again."""
    with fresh_stack() as made:
        yield made


@pytest.fixture(scope="session")
def stack_of_three() -> Iterator[Stack]:
    """Three brokers, PostgreSQL, Redis and ClickHouse for the whole run. A test that breaks one calls `up()` again."""
    with fresh_stack(brokers=3) as made:
        yield made
