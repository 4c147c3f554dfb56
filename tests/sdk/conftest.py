"""The product in both modes, prepared for clients, and the clients' environments."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from infra.stack import Stack
from tests.distributed.conftest import installed_on
from tests.distributed.house import House
from tests.lab import PRICE, Lab
from tests.sdk.environments import installed

MODES = ("embedded", "distributed")


@pytest.fixture(scope="session")
def environments() -> Path:
    """The folder of the clients' environments."""
    return installed()


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=MODES)
async def offered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, str]]:
    """What `clients/checks.py` says is in a client's environment, for the product in each mode."""
    async with AsyncExitStack() as things:
        if request.param == "embedded":
            lab = await things.enter_async_context(Lab())
            url = lab.url
        else:
            stack: Stack = request.getfixturevalue("stack")
            house = House(installed_on(stack, tmp_path_factory.mktemp("bootstrap")))
            lab = await things.enter_async_context(house)
            await house.begin(gateways=1)
            url = house.gateways[0].url
        yield {"URL": url, **await _prepared(lab)}


async def _prepared(lab: Lab) -> dict[str, str]:
    """Models, budgets and keys."""
    quick = await lab.hello()
    slow = await lab.hello("slow", "--ms-per-token", "40")
    sleepy = await lab.hello("sleepy", "--ttft-ms", "3000")
    await lab.model("m", quick.url, backend="quick")
    await lab.model("slow", slow.url, backend="slow")
    await lab.model("sleepy", sleepy.url, backend="sleepy")
    anthropic = {"url": quick.url.removesuffix("/v1"), "protocol": "anthropic", "timeout_seconds": 60}
    await lab.admin("PUT", "/backends/anthropic", anthropic)
    route = {"backend": "anthropic", "upstream_model": "claude", "weight": 1, "tier": 0}
    await lab.admin("PUT", "/models/claude", {"routes": [route], "max_output_tokens": 256, "context_tokens": 100_000})
    await lab.admin("PUT", "/prices/claude", dict(PRICE))
    keys = await lab.org("clients", ("main", "broke"))
    await lab.budget("clients", "cap", "1000")
    await lab.budget("clients", "empty", "0.000000001", project="broke")
    limited = await lab.key("clients", "main", limits={"concurrent": 1})
    return {"KEY": keys["main"].secret, "BROKE_KEY": keys["broke"].secret, "LIMITED_KEY": limited.secret}
