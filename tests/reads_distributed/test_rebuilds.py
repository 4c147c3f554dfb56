"""Views are rebuilt, compared and repaired through a read process, while workers feed them and facts keep coming."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from domain.envelope import decode
from domain.ids import partition_of
from domain.money import format_usd
from infra.adapters.secrets import InstallationSecrets
from infra.stack import Stack
from projections.ports import FACTS
from tests.bookkeeping import SECRET, make_books
from tests.factgen import Traffic
from tests.reads_distributed.house import Reading, reading
from tests.waiting import until

VIEWS = ["directory", "balances", "usage", "audit"]


@pytest_asyncio.fixture
async def house(stack: Stack) -> AsyncIterator[Reading]:
    async with reading(stack, make_books(InstallationSecrets(SECRET))) as made:
        made.write_control()
        made.write_facts(made.books.facts)
        yield made


async def test_views_are_rebuilt_under_load_and_agree(house: Reading) -> None:
    """Two workers feed while facts keep coming and every view is rebuilt, twice: the hashes are equal at the watermark they
    name, no read fails meanwhile, and afterwards the workers feed the versions that are live then: nothing is missing."""
    await asyncio.gather(house.home.join(), house.home.join(), house.open())
    await house.home.caught_up()
    versions = {name: store.live() for name, store in house.home.stores.items()}
    done = asyncio.Event()
    load, reads = asyncio.create_task(_write(house, done)), asyncio.create_task(_read(house, done))
    try:
        for _ in range(2):
            result = await house.operation("all", "rebuild")
            assert [row["name"] for row in result["data"]] == VIEWS
            assert all(
                row["equal"] and row["switched"] and row["live_hash"] == row["rebuilt_hash"] for row in result["data"]
            )
    finally:
        done.set()
        assert await load > 100
        assert await reads > 20
    assert all(store.live() > versions[name] for name, store in house.home.stores.items())
    await house.home.caught_up()
    assert {name: found.equal for name, found in house.home.verified().items()} == dict.fromkeys(VIEWS, True)
    ends = house.home.logs[FACTS].ends()
    marks = house.home.marks("usage")
    assert [marks[p].events if p in marks else 0 for p in range(len(ends))] == list(ends)
    assert house.home.errors() == []


async def test_a_verification_finds_a_changed_row_and_a_rebuild_repairs_it(house: Reading) -> None:
    """One nano-dollar more in a row of either store: `equal` is false, for that view only; a rebuild puts it right."""
    await asyncio.gather(house.home.join(), house.open())
    await house.home.caught_up()
    usage, balances = (house.home.stores[name].live() for name in ("usage", "balances"))
    wrong = f"ALTER TABLE usage_requests_{usage} UPDATE cost = cost + 1 WHERE outcome = 'completed' AND org = 'acme'"
    house.home.analytics.command(f"{wrong} SETTINGS mutations_sync = 2")
    with house.home.views.writing() as db:
        db.execute(f"UPDATE balances_buckets_{balances} SET consumed = consumed + 1 WHERE org = ?", ("acme",))
    found = await house.operation("all", "verify")
    assert {row["name"] for row in found["data"] if not row["equal"]} == {"usage", "balances"}
    assert not found["equal"]
    await house.operation("usage", "rebuild")
    await house.operation("balances", "rebuild")
    assert (await house.operation("all", "verify"))["equal"]


async def test_a_parked_event_is_freed_through_a_read_process(stack: Stack) -> None:
    """A fact that is no fact holds its organization's balance back, and no other's; dropped through the API, the worker goes
    on with what waited and with what comes: in the end everything is in, to the nano-dollar."""
    books = make_books(InstallationSecrets(SECRET))
    early, late = books.facts[:-300], books.facts[-300:]
    async with reading(stack, books) as house:
        house.write_control()
        house.write_facts(early)
        await asyncio.gather(house.home.join(), house.open())
        await house.home.caught_up()
        poison = json.dumps({"type": "RequestCompleted", "org": "acme"}).encode()
        house.write_facts([(partition_of("acme"), poison), *late[:200]])
        await house.home.caught_up()
        parked = (await house.get("/admin/v1/parked"))["data"]
        mine = [one for one in parked if one["projection"] == "balances"]
        waiting = sum(decode(body).org == "acme" for _, body in late[:200])
        assert [one["error"] is None for one in mine] == [False] + [True] * waiting
        first, second = mine[0]["id"], mine[1]["id"]
        assert (await house.call("POST", f"/admin/v1/parked/{second}/retry")).code == "parked_earlier"
        assert (await house.call("POST", f"/admin/v1/parked/{first}/retry")).code == "still_poisoned"
        assert (await house.call("POST", f"/admin/v1/parked/{first}/drop")).status == 200
        house.write_facts(late[200:])
        in_usage = next(one["id"] for one in parked if one["projection"] == "usage")
        assert (await house.call("POST", f"/admin/v1/parked/{in_usage}/drop")).status == 200
        await house.home.caught_up()
        await until(lambda: not house.home.parking.parked(), "nothing waits any more", 30)
        for org in ("acme", "globex"):
            true = format_usd(sum(spent.cost for spent in books.of(org)))
            assert (await house.get(f"/read/v1/orgs/{org}/budgets/cap"))["consumed_usd"] == true
            usage = await house.get(f"/read/v1/orgs/{org}/usage?bucket=all")
            assert [row["cost_usd"] for row in usage["data"]] == [true]
        assert (await house.operation("all", "verify"))["equal"]


@pytest.mark.parametrize("victim", ["reader", "worker"])
async def test_a_rebuild_or_a_feed_that_is_killed_leaves_nothing_half_done(house: Reading, victim: str) -> None:
    """SIGKILL in the middle of a rebuild: the view that was live is, the next rebuild clears away and agrees."""
    worker, process = await asyncio.gather(house.home.join(), house.open())
    await house.home.caught_up()
    done = asyncio.Event()
    load = asyncio.create_task(_write(house, done))
    started = await house.call("POST", "/admin/v1/projections/all/rebuild")
    assert started.status == 202
    await asyncio.sleep(0.15)
    if victim == "reader":
        await process.kill()
        await house.ask_at(await process.start())
    else:
        await worker.kill()
        await house.home.join()
    done.set()
    await load
    await house.home.caught_up()
    result = await house.operation("all", "rebuild")
    assert result["equal"], result
    await house.home.caught_up()
    assert (await house.operation("all", "verify"))["equal"]


async def _write(house: Reading, done: asyncio.Event) -> int:
    """Facts of other organizations, as fast as they are acknowledged; answers how many."""
    traffic, written = Traffic(seed=11, orgs=("initech", "umbrella", "hooli")), [0] * 12
    while not done.is_set():
        traffic.run(10)
        more = [(r.partition, r.value) for r in traffic.log.all() if r.offset >= written[r.partition]]
        written = list(traffic.log.ends())
        await asyncio.to_thread(house.write_facts, more)
        await asyncio.sleep(0.02)
    return sum(written)


async def _read(house: Reading, done: asyncio.Event) -> int:
    """Figures that do not change, asked all the time; answers how often."""
    budget, usage, asked = None, None, 0
    while not done.is_set():
        now = await house.get("/read/v1/orgs/acme/budgets/cap")
        spent = (await house.get("/read/v1/orgs/acme/usage?bucket=all"))["data"]
        assert (now["consumed_usd"], spent) == (budget or now["consumed_usd"], usage or spent)
        budget, usage, asked = now["consumed_usd"], spent, asked + 1
    return asked
