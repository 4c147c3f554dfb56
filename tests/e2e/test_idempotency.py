"""P8: a command is applied once, a request is carried out once, and both are remembered through kill -9."""

import asyncio
from typing import Any

from tests.exact import nano
from tests.http1 import Answer
from tests.lab import Key, Lab
from tests.waiting import until

ADJUST = "/orgs/acme/budgets/cap/adjust"
TEN = {"amount_usd": "10", "reason": "top-up"}


async def budgeted(lab: Lab) -> Key:
    """An org with a model, a project, a key, and a budget of $100."""
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "100")
    return key


async def adjustments(lab: Lab) -> int:
    """The sum of the budget's adjustments in nano-dollars."""
    return nano((await lab.admin("GET", "/orgs/acme/budgets/cap"))["adjustments_usd"])


def same(answers: list[Answer]) -> None:
    """All of them are one answer: status, bytes, version and position."""
    told = {(a.status, a.body, a.headers.get("etag"), a.headers.get("x-tollhouse-position")) for a in answers}
    assert len(told) == 1, told


async def test_a_repeated_command_gets_the_same_bytes_and_is_applied_once(lab: Lab) -> None:
    """The same Idempotency-Key and body: the same answer to the byte, secrets included; the effect is there once."""
    await budgeted(lab)
    commands: list[tuple[str, str, Any]] = [
        ("POST", ADJUST, TEN),
        ("POST", "/orgs", {"id": "other", "name": "Other"}),
        ("POST", "/orgs/acme/keys", {"name": "twice", "project": "main"}),
        ("PUT", "/prices/m", {"input_usd": "1", "output_usd": "2"}),
    ]
    for method, path, body in commands:
        answers = [await lab.command(method, path, body, idempotency_key=f"k{path}") for _ in range(3)]
        assert answers[0].status in (200, 201)
        same(answers)
    assert await adjustments(lab) == nano("10")
    keys = (await lab.admin("GET", "/orgs/acme/keys"))["data"]
    assert [key["name"] for key in keys].count("twice") == 1


async def test_of_twenty_at_once_one_is_applied_and_all_get_its_answer(lab: Lab) -> None:
    """Concurrent equal commands wait for the first one's answer."""
    await budgeted(lab)
    calls = (lab.command("POST", ADJUST, TEN, idempotency_key="once") for _ in range(20))
    answers = list(await asyncio.gather(*calls))
    assert answers[0].status == 200
    same(answers)
    assert await adjustments(lab) == nano("10")


async def test_another_body_under_the_same_key_is_refused(lab: Lab) -> None:
    """409 idempotency_key_reused for another body or another path, and nothing is applied."""
    await budgeted(lab)
    await lab.admin("POST", ADJUST, TEN, idempotency_key="k")
    other_body = await lab.command("POST", ADJUST, TEN | {"amount_usd": "11"}, idempotency_key="k")
    other_path = await lab.command("POST", "/orgs", {"id": "other", "name": "Other"}, idempotency_key="k")
    assert (other_body.status, other_body.code) == (409, "idempotency_key_reused")
    assert (other_path.status, other_path.code) == (409, "idempotency_key_reused")
    assert await adjustments(lab) == nano("10")
    assert (await lab.command("GET", "/orgs/other")).status == 404


async def test_commands_are_remembered_through_kill_9(lab: Lab) -> None:
    """After kill -9 and a restart the first answer comes again, and another body is still refused."""
    await budgeted(lab)
    key = {"name": "k", "project": "main"}
    before = [
        await lab.command("POST", ADJUST, TEN, idempotency_key="a"),
        await lab.command("POST", "/orgs/acme/keys", key, idempotency_key="b"),
    ]
    await lab.product.kill()
    await lab.start()
    after = [
        await lab.command("POST", ADJUST, TEN, idempotency_key="a"),
        await lab.command("POST", "/orgs/acme/keys", key, idempotency_key="b"),
    ]
    for first, again in zip(before, after, strict=True):
        same([first, again])
    reused = await lab.command("POST", ADJUST, TEN | {"amount_usd": "11"}, idempotency_key="a")
    assert (reused.status, reused.code) == (409, "idempotency_key_reused")
    assert await adjustments(lab) == nano("10")


def refused_as_duplicate(answer: Answer, first: str, outcome: str) -> None:
    """409 with the first request's id and outcome; a client library is told not to retry."""
    assert (answer.status, answer.code) == (409, "duplicate_request"), answer.body
    error = answer.json()["error"]
    assert (error["request_id"], error["outcome"]) == (first, outcome)
    assert answer.headers["x-should-retry"] == "false"
    assert answer.id != first


async def test_a_request_with_a_used_key_is_not_dispatched_again(lab: Lab) -> None:
    """409 duplicate_request with the first request's id while it is in flight, when it is done, and after kill -9; neither
    dispatched nor charged. Another service key may use the same Idempotency-Key."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = await budgeted(lab)
    other = await lab.key("acme", "main")
    gate = fake.gates["m"] = asyncio.Event()
    under_way = asyncio.create_task(lab.chat(key, "m", header_idempotency_key="once"))
    await until(lambda: len(fake.received) == 1, "the first is dispatched")
    in_flight = await lab.chat(key, "m", header_idempotency_key="once")
    gate.set()
    first = await under_way
    assert first.status == 200
    refused_as_duplicate(in_flight, first.id, "open")
    refused_as_duplicate(await lab.chat(key, "m", "else", header_idempotency_key="once"), first.id, "completed")
    assert (await lab.chat(other, "m", header_idempotency_key="once")).status == 200
    assert (await lab.chat(key, "m", header_idempotency_key="twice")).status == 200
    await lab.product.kill()
    await lab.start()
    refused_as_duplicate(await lab.chat(key, "m", header_idempotency_key="once"), first.id, "completed")
    assert len(fake.received) == 3


async def test_of_twenty_equal_requests_at_once_one_is_dispatched(lab: Lab) -> None:
    """One is served, nineteen are told its id."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = await budgeted(lab)
    calls = (lab.chat(key, "m", header_idempotency_key="once", stream=n % 2 == 0) for n in range(20))
    answers = await asyncio.gather(*calls)
    served = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert len(served) == len(fake.received) == 1
    assert {answer.code for answer in refused} == {"duplicate_request"}
    assert {answer.json()["error"]["request_id"] for answer in refused} == {served[0].id}


async def test_a_request_that_kill_9_cut_off_is_not_dispatched_again(lab: Lab) -> None:
    """Killed with the first one in flight: nobody knows what became of it, so it is unconfirmed, and its key stays used."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = await budgeted(lab)
    fake.gates["m"] = asyncio.Event()
    cut = asyncio.create_task(lab.chat(key, "m", header_idempotency_key="once"))
    await until(lambda: len(fake.received) == 1, "the first is dispatched")
    await lab.product.kill()
    await asyncio.gather(cut, return_exceptions=True)
    await lab.start()
    (first,) = fake.ids
    answer = await lab.chat(key, "m", header_idempotency_key="once")
    refused_as_duplicate(answer, first, answer.json()["error"]["outcome"])
    assert answer.json()["error"]["outcome"] in ("open", "unconfirmed")
    assert len(fake.received) == 1
