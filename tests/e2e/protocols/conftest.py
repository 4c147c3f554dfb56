"""One product for all of these, with an organization of its own for each test, before a backend that answers with recordings."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.lab import Key, Lab
from tests.recorded import Recorded, recorded

_orgs = itertools.count(1)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def lab() -> AsyncIterator[Lab]:
    """The product."""
    async with Lab() as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def backend(lab: Lab) -> AsyncIterator[Recorded]:
    """The backend of ``claude``, which speaks Anthropic's protocol, and of ``gpt``, which speaks OpenAI's."""
    async with recorded() as made:
        await lab.model("claude", made.url, backend="anthropic", protocol="anthropic", credential="sk-ant-1")
        await lab.model("gpt", f"{made.url}/v1", backend="openai", credential="sk-1")
        yield made


@pytest.fixture
def behind(backend: Recorded) -> Recorded:
    """The backend, asked nothing yet."""
    backend.asked.clear()
    return backend


@pytest.fixture
def org() -> str:
    return f"org-{next(_orgs)}"


@pytest_asyncio.fixture(loop_scope="package")
async def key(lab: Lab, backend: Recorded, org: str) -> Key:
    return (await lab.org(org))["main"]


@pytest_asyncio.fixture(loop_scope="package")
async def chats(lab: Lab, key: Key) -> AsyncIterator[AsyncOpenAI]:
    """The client of OpenAI's protocol."""
    async with AsyncOpenAI(api_key=key.secret, base_url=f"{lab.url}/v1", max_retries=0) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="package")
async def writes(lab: Lab, key: Key) -> AsyncIterator[AsyncAnthropic]:
    """The client of Anthropic's protocol; it tries again, as it does by itself."""
    async with AsyncAnthropic(api_key=key.secret, base_url=lab.url) as made:
        yield made
