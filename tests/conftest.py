"""``--full``: also the long forms of attacks (`make faults`). Without it they are deselected, and pytest's summary says so."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.lab import Lab


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
