"""P6: a server that is away closes what needs it, says so, and nothing else."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from infra.stack import Stack
from tests.distributed.house import House, unique
from tests.exact import nano
from tests.pressure import pressure
from tests.waiting import eventually


@pytest_asyncio.fixture
async def whole(stack: Stack) -> AsyncIterator[Stack]:
    """The servers, all of them up again afterwards."""
    yield stack
    await asyncio.to_thread(stack.up)


async def test_requests_go_on_without_postgresql(house: House, whole: Stack) -> None:
    """PostgreSQL is killed: requests are served as before, what they cost is settled, so that a budget is exhausted and not only
    busy; commands are 503 until it is back, and a gateway starts without it."""
    fake = await house.fake()
    await house.begin(gateways=2)
    org, model = unique("org"), unique("m")
    await house.model(model, fake.url, {"input_usd": "0", "output_usd": "1000"}, backend=unique("backend"))
    key = (await house.org(org))["main"]
    poor = unique("org")
    beggar = (await house.org(poor))["main"]
    await house.budget(org, "cap", "1000")
    await house.budget(poor, "cap", "0.050")
    async with pressure(house, key, model, 4) as load:
        await load.of(200, 20)
        await asyncio.to_thread(whole.kill, "postgres")
        refused = await eventually(
            lambda: house.command("POST", "/orgs", {"id": unique("org"), "name": "x"}),
            lambda answer: answer.status == 503,
        )
        assert (refused.status, refused.code) == (503, "journal_unavailable")
        assert any("journal" in reason for reason in await eventually(house.controls[0].reasons, bool))
        third = house.make("gateway")
        house.others.append(third)
        await third.start()
        house.gateways.append(third)
        await asyncio.sleep(3.0)  # the gatekeeper's lease has expired meanwhile
        assert (await house.chat(beggar, model, max_tokens=30)).status == 200
        empty = await eventually(
            lambda: house.chat(beggar, model, max_tokens=30), lambda answer: answer.code == "insufficient_quota"
        )
        assert empty.code == "insufficient_quota", empty.body
        budget = empty.json()["error"]["budget"]
        assert (nano(budget["consumed_usd"]), nano(budget["held_usd"])) == (nano("0.030"), 0)
        await load.of(200, 50)
    assert {(answer.status, answer.code) for answer in load.answers} == {(200, None)}
    assert not load.cuts
    await asyncio.to_thread(whole.start, "postgres")
    made = await eventually(
        lambda: house.command("POST", "/orgs", {"id": unique("org"), "name": "x"}), lambda answer: answer.status == 201
    )
    assert made.status == 201
    assert not await eventually(house.controls[0].reasons, lambda reasons: not reasons)


async def test_requests_are_refused_without_redis_or_kafka_and_served_again(house: House, whole: Stack) -> None:
    """Redis and Kafka are stopped and go on: meanwhile every request is 503 with a code, afterwards they are served, and what
    was served is what is on the books."""
    fake = await house.fake()
    await house.begin(gateways=2)
    org, model = unique("org"), unique("m")
    await house.model(model, fake.url, backend=unique("backend"))
    key = (await house.org(org))["main"]
    await house.budget(org, "cap", "1000")
    for server, codes in (("redis", {"gate_unavailable"}), ("kafka-1", {"not_ready", "log_unavailable"})):
        async with pressure(house, key, model, 8) as load:
            await load.of(200, 30)
            await asyncio.to_thread(whole.pause, server)
            # Callers of their own: those from before may all be waiting for answers that are owed.
            async with pressure(house, key, model, 8) as late:
                await late.of(503, 20)
                await asyncio.to_thread(whole.resume, server)
            await load.of(200, 100)
        answers = load.answers + late.answers
        assert {answer.code for answer in answers if answer.status != 200} <= codes
        assert {answer.status for answer in answers} == {200, 503}

    async def open_ones() -> set[str]:
        ends: dict[str, str] = {}
        for fact in await house.facts(org):
            ends[fact.data["attempt"]] = fact.type
        return {attempt for attempt, type_ in ends.items() if type_ == "RequestAdmitted"}

    assert not await eventually(open_ones, lambda left: not left)
    completed = {fact.data["attempt"] for fact in await house.facts(org) if fact.type == "RequestCompleted"}
    assert completed == set(fake.served)
