"""A read process answers from views that workers feed: current, exact, and honest about what is missing."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from domain.money import format_usd
from infra.adapters.secrets import InstallationSecrets
from infra.stack import Stack
from tests.bookkeeping import SECRET, make_books
from tests.reads_distributed.house import Reading, reading


@pytest_asyncio.fixture
async def house(stack: Stack) -> AsyncIterator[Reading]:
    async with reading(stack, make_books(InstallationSecrets(SECRET))) as made:
        yield made


async def test_budgets_and_usage_agree_with_what_was_spent(house: Reading) -> None:
    """The lifetime budget's consumption, the usage of all time, the costs and the CSV are the same number: the true one."""
    house.write_control()
    house.write_facts(house.books.facts)
    await asyncio.gather(house.home.join(), house.open())
    await house.home.caught_up()
    for org in ("acme", "globex"):
        true = sum(spent.cost for spent in house.books.of(org))
        held = sum(spent.held for spent in house.books.of(org))
        budget = await house.get(f"/read/v1/orgs/{org}/budgets/cap")
        assert (budget["consumed_usd"], budget["held_usd"]) == (format_usd(true), format_usd(held))
        usage = await house.get(f"/read/v1/orgs/{org}/usage?bucket=all")
        assert [row["cost_usd"] for row in usage["data"]] == [format_usd(true)]
        assert usage["lag_ms"] == 0
