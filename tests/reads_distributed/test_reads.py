"""A read process answers from views that workers feed: current, exact, and honest about what is missing."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from domain.admin_key import AdminKeyIssued, AdminKeyRevoked
from domain.credential import ADMIN, make_key
from domain.envelope import decode
from domain.facts import RequestVoided
from domain.ids import partition_of
from domain.money import format_usd
from infra.adapters.secrets import InstallationSecrets
from infra.stack import Stack
from tests.bookkeeping import NOW, SECRET, make_books
from tests.child import Child
from tests.factgen import envelope
from tests.http1 import Opened
from tests.reads_distributed.house import Reading, reading
from tests.waiting import eventually, until


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


async def test_a_read_with_a_position_sees_what_was_just_acknowledged(house: Reading) -> None:
    """Fact by fact: as soon as Kafka has one, a read that names its place finds it, in budgets and in usage alike."""
    house.write_control()
    await asyncio.gather(house.home.join(), house.open())
    facts, consumed = iter(house.books.facts), set()
    for _ in range(30):
        partition, body = next(facts)
        ends = house.write_facts([(partition, body)])
        org = decode(body).org
        if org == "_":
            continue
        position = f"f{partition}.{ends[partition] - 1}"
        budget = await house.get(f"/read/v1/orgs/{org}/budgets/cap", x_tollhouse_position=position)
        usage = await house.get(f"/read/v1/orgs/{org}/usage?bucket=all", x_tollhouse_position=position)
        assert budget["consumed_usd"] == (usage["data"] or [{"cost_usd": "0"}])[0]["cost_usd"]
        assert budget["lag_ms"] == usage["lag_ms"] == 0
        consumed.add((org, budget["consumed_usd"]))
    assert len(consumed) > 5


async def test_a_position_that_does_not_come_is_said(house: Reading) -> None:
    """Nobody feeds the views: 503 `view_behind` after the wait, and without a position `as_of` tells what is missing."""
    house.write_control()
    ends = house.write_facts(house.books.facts)
    worker = await house.home.join()
    await house.open()
    await house.home.caught_up()
    await worker.stop()
    partition = partition_of("acme")
    body = envelope(RequestVoided(attempt="req_lost", org="acme"), NOW, 10**6)
    house.write_facts([(partition, body)])
    path = "/read/v1/orgs/acme/usage?bucket=all"
    answer = await house.call("GET", path, x_tollhouse_position=f"f{partition}.{ends[partition]}")
    assert (answer.status, answer.code) == (503, "view_behind")
    doc = await house.get(path)
    assert doc["as_of"] == "2026-11-08T12:00:00Z"
    assert doc["lag_ms"] > 0
    fed = {"balances", "usage"}
    behind = await eventually(lambda: house.get("/admin/v1/projections"), lambda doc: _faulty(doc) == fed)
    assert _faulty(behind) == fed


def _faulty(projections: Any) -> set[str]:
    """The projections of which something is said to be wrong."""
    return {row["name"] for row in projections["data"] if row["error"]}


async def test_events_are_followed_as_they_come(house: Reading) -> None:
    """A stream begins with the next event and has every one of them, in order; SIGTERM ends it, and the process with 0."""
    house.write_control()
    worker, process = await asyncio.gather(house.home.join(), house.open())
    await house.home.caught_up()
    key = house.books.keys["acme/org-admin"]
    stream = await house.http.open(
        "GET",
        "/read/v1/orgs/acme/events",
        None,
        {"authorization": f"Bearer {key}", "accept": "text/event-stream"},
    )
    mine = [(partition, body) for partition, body in house.books.facts if decode(body).org == "acme"][:40]
    seen: list[str] = []
    reading = asyncio.create_task(_ids(stream, seen))
    await asyncio.sleep(0.5)
    for fact in mine:
        house.write_facts([fact])
    await until(lambda: len(seen) >= len(mine), "every event came", 30)
    assert seen == [decode(body).id for _, body in mine]
    assert await process.stop() == 0
    await asyncio.wait_for(reading, 10)
    assert worker.living()


async def test_a_key_works_at_once_and_no_longer_when_it_is_revoked(house: Reading) -> None:
    """A key that was issued while the process runs is known at its first use; a revoked one is refused within a second."""
    control = house.books.control
    house.write_control()
    await house.open()
    secret = make_key(ADMIN, 12345)
    house.books.keys["new"] = secret
    hash = InstallationSecrets(SECRET).hash(secret)
    issued = AdminKeyIssued(name="new", role="platform-admin", org=None, hash=hash, redacted="th_ak_…")
    control.emit("_/admin-key/adm_new", issued)
    house.write_control()
    assert (await house.call("GET", "/admin/v1/parked", "new")).status == 200
    control.emit("_/admin-key/adm_new", AdminKeyRevoked(reason=None))
    house.write_control()
    revoked = last = time.monotonic()
    while (answer := await house.call("GET", "/admin/v1/parked", "new")).status != 401:
        last = answer.began
    assert answer.code == "invalid_api_key"
    assert last - revoked < 1.0, "the bound of a revocation is a promise (P5)"


async def test_a_process_that_stood_still_answers_at_once(house: Reading) -> None:
    """Stopped for longer than its view of keys may be old, it proves its view anew instead of refusing who had waited."""
    house.write_control()
    _, process = await asyncio.gather(house.home.join(), house.open())
    await house.current("/read/v1/orgs/acme/budgets/cap")
    os.kill(process.pid, signal.SIGSTOP)
    waiting = [asyncio.create_task(house.call("GET", "/read/v1/orgs/acme/budgets/cap")) for _ in range(20)]
    await asyncio.sleep(1.5)  # standing still is the attack
    os.kill(process.pid, signal.SIGCONT)
    answers = await asyncio.gather(*waiting)
    assert {(answer.status, answer.code) for answer in answers} == {(200, None)}


async def test_it_may_be_started_before_what_it_needs(house: Reading) -> None:
    """It listens, says what it waits for in /readyz and in its log, and prints its ready line when it can answer."""
    stack = house.home.stack
    house.write_control()
    for name in ("postgres", "clickhouse", "kafka-1"):
        stack.stop(name)
    process = house.process()
    starting = asyncio.create_task(process.start(120))
    try:
        await until(lambda: "waiting for PostgreSQL" in logged(process), "it says what it waits for", 30)
        assert not starting.done()
        await asyncio.to_thread(stack.start, "postgres")
        await until(lambda: "keyring" in logged(process), "it says that Kafka does not answer", 30)
        assert not starting.done()
    finally:
        await asyncio.to_thread(stack.up)
    await house.ask_at(await starting)
    await house.home.join()
    assert (await house.current("/read/v1/orgs/acme/budgets"))["data"]


@pytest.mark.parametrize("server", ["clickhouse", "postgres", "kafka-1"])
async def test_an_outage_is_said_and_ends_by_itself(house: Reading, server: str) -> None:
    """While a server is dead, what needs it is 503 with a code, and nothing else; once it is back, all is as before."""
    stack = house.home.stack
    house.write_control()
    house.write_facts(house.books.facts)
    await asyncio.gather(house.home.join(), house.open())
    await house.home.caught_up()
    paths = ["/read/v1/orgs/acme/budgets", "/read/v1/orgs/acme/usage?bucket=all", "/read/v1/orgs/acme/audit"]
    before = [(await house.get(path))["data"] for path in paths]
    stack.kill(server)
    try:
        codes = [(await house.call("GET", path)).code for path in paths]
    finally:
        await asyncio.to_thread(stack.start, server)
    away: dict[str, Sequence[set[str | None]]] = {
        "clickhouse": [{None}, {"analytics_unavailable"}, {"analytics_unavailable"}],
        "postgres": [{"views_unavailable"}] * 3,
        "kafka-1": [{"log_unavailable", "not_ready"}] * 3,
    }
    assert all(code in allowed for code, allowed in zip(codes, away[server], strict=True)), codes

    async def answers() -> list[int]:
        return [(await house.call("GET", path)).status for path in paths]

    assert await eventually(answers, lambda found: found == [200] * 3, 60) == [200] * 3
    after = [(await house.get(path))["data"] for path in paths]
    assert [strip(rows) for rows in after] == [strip(rows) for rows in before]


def logged(process: Child) -> str:
    return process.log.read_text() if process.log.exists() else ""


def strip(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what tells how new a row is, and what depends on the time of asking."""
    return [{k: v for k, v in row.items() if k not in ("as_of", "lag_ms", "forecast_usd")} for row in rows]


async def _ids(stream: Opened, seen: list[str]) -> None:
    while piece := await stream.piece():
        lines = [line.removeprefix("data: ") for line in piece.decode().splitlines() if line.startswith("data: ")]
        seen += [json.loads(line)["id"] for line in lines]
