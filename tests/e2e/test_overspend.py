"""P1: a hard budget is never exceeded, by any number of clients at once, on any budget of the path."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.exact import cost, dollars, nano
from tests.http1 import Answer
from tests.lab import Key, Lab, Row
from tests.waiting import eventually

CLIENTS = 1000
ORG_LIMIT, TEAM_LIMIT = "5", "2"
WORST, COST = nano("0.10"), nano("0.05")

# A body of exactly BODY bytes is bounded by BODY + 128 tokens of input, and has one: 1,001 tokens at $50 a million and
# 100 of output at $499.50 are $0.10; one token and 100 are $0.05.
PRICE = {"input_usd": "50", "output_usd": "499.5"}
BODY, OUTPUT = 873, 100


@dataclass
class Storm:
    """What the clients of one budget's path saw."""

    served: int = 0
    busy: int = 0
    closed: int = 0
    """Refused while the log was too slow to be dispatched by: the machine is, with a thousand clients and all else on it."""
    exhausted: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def body(stream: bool) -> dict[str, Any]:
    """A request whose JSON has exactly `BODY` bytes; its prompt is one long word."""
    made: dict[str, Any] = {"model": "m", "max_tokens": OUTPUT, "messages": [{"role": "user", "content": ""}]}
    if stream:
        made["stream"] = True
    made["messages"][0]["content"] = "x" * (BODY - len(json.dumps(made)))
    return made


def judge(answer: Answer, storm: Storm) -> bool:
    """Counts an answer; True when its client is done."""
    match answer.status, answer.code:
        case 200, None:
            storm.served += 1
            return True
        case 402, "insufficient_quota":
            storm.exhausted.append(answer.json()["error"]["budget"])
            if answer.headers.get("x-should-retry") != "false" or not answer.id.startswith("req_"):
                storm.wrong.append(f"402 with {answer.headers}")
            return True
        case 429, "budget_busy":
            storm.busy += 1
            if not int(answer.headers.get("retry-after", "0")) >= 1:
                storm.wrong.append(f"429 with {answer.headers}")
            return False
        case 503, "log_unavailable":
            storm.closed += 1
            if not int(answer.headers.get("retry-after", "0")) >= 1:
                storm.wrong.append(f"503 with {answer.headers}")
            return False
        case status, code:
            storm.wrong.append(f"{status} {code}")
            return True


async def client(lab: Lab, key: Key, stream: bool, storm: Storm) -> None:
    """One caller: again and again while the money is held, until it is served or refused for good."""
    headers = {"authorization": f"Bearer {key.secret}"}
    while True:
        answer = await lab.http.call("POST", "/v1/chat/completions", body(stream), headers)
        if judge(answer, storm):
            return
        await asyncio.sleep(random.uniform(0.05, 0.5))


async def watch(lab: Lab, seen: list[str], exceeded: list[str]) -> None:
    """Reads both budgets while the storm lasts."""
    while True:
        for budget in ("cap", "team"):
            now = await lab.balance("acme", budget)
            seen.append(budget)
            if now.consumed + now.held > now.limit:
                exceeded.append(f"{budget}: {now}")
        await asyncio.sleep(0.1)


async def test_a_thousand_clients_cannot_overspend_two_budgets_of_one_path(lab: Lab) -> None:
    """1,000 clients on $5 of an org, half of them also on $2 of its project, calls of $0.05 that hold $0.10, plain and
    streamed: neither is ever exceeded, both are used up to what one more call could need, and each refusal tells the truth."""
    hello = await lab.hello("hello", "--ttft-ms", "40")
    await lab.model("m", hello.url, PRICE)
    keys = await lab.org("acme", ("team", "rest"))
    await lab.budget("acme", "cap", ORG_LIMIT)
    await lab.budget("acme", "team", TEAM_LIMIT, project="team")
    await lab.balance("acme", "team")  # the read side is up
    storms = {project: Storm() for project in keys}
    seen: list[str] = []
    exceeded: list[str] = []
    watcher = asyncio.create_task(watch(lab, seen, exceeded))
    callers = []
    for number in range(CLIENTS):
        project = "team" if number % 2 else "rest"
        callers.append(client(lab, keys[project], number % 3 == 0, storms[project]))
    random.shuffle(callers)
    async with asyncio.timeout(120):  # a client that is told "busy" for ever would never end
        await asyncio.gather(*callers)
    assert not watcher.done(), f"the budgets could not be read in the storm: {watcher.exception()}"
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)

    team, rest = storms["team"], storms["rest"]
    lines = hello.served()
    spent = sum(cost(PRICE, line["prompt_tokens"], line["completion_tokens"]) for line in lines)
    print(
        f"\nP1: {CLIENTS} clients: served {len(lines)} calls, {dollars(spent)} of ${ORG_LIMIT}; "
        f"budget_busy {team.busy + rest.busy}, 402 {len(team.exhausted)} + {len(rest.exhausted)}; "
        f"503 {team.closed + rest.closed}; budgets read {len(seen)} times"
    )
    assert not team.wrong + rest.wrong, Counter(team.wrong + rest.wrong)
    assert not exceeded
    assert {"cap", "team"} <= set(seen)
    assert spent <= nano("5.000000000")
    assert spent > nano("4.90")
    assert team.served * COST <= nano(TEAM_LIMIT)
    assert (team.served + rest.served) * COST == spent == len(lines) * COST
    for refused in team.exhausted + rest.exhausted:
        assert refused["limit_usd"] in ("5.000000000", "2.000000000"), refused
        assert nano(refused["consumed_usd"]) + WORST > nano(refused["limit_usd"]), f"it may yet be paid: {refused}"
        assert nano(refused["consumed_usd"]) + nano(refused["held_usd"]) <= nano(refused["limit_usd"]), refused
        assert refused["scope"]["kind"] == {"cap": "org", "team": "project"}[refused["id"]]
        assert refused["period_end"] is None
    assert {refused["id"] for refused in rest.exhausted} == {"cap"}
    for budget, limit, total in (("cap", ORG_LIMIT, spent), ("team", TEAM_LIMIT, team.served * COST)):
        final = await eventually(partial(lab.balance, "acme", budget), lambda balance: not balance.held)
        assert (final.limit, final.consumed, final.held) == (nano(limit), total, 0)
    served = {line["request_id"] for line in lines}
    completed = await eventually(partial(_completed, lab), lambda rows: served <= {row.id for row in rows})
    assert {row.id for row in completed} == served
    assert sum(row.cost for row in completed) == spent


async def _completed(lab: Lab) -> list[Row]:
    """Of a view of its own: it may be there a moment after the balances."""
    return [row for row in await lab.rows("acme") if row.outcome == "completed"]


async def test_an_uncapped_request_gets_what_the_budget_can_pay(lab: Lab) -> None:
    """Without a cap of its own, a request is clamped to what is left: upstream as its cap, to the caller as a header."""
    fake = await lab.fake()
    await lab.model("m", fake.url, {"input_usd": "0", "output_usd": "1000"})
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "0.1")
    clamped = await lab.chat(key, "m")
    asked = await lab.chat(key, "m", max_tokens=101)
    assert clamped.status == 200
    assert clamped.headers["x-tollhouse-output-cap"] == "100"
    assert fake.received[0].body["max_completion_tokens"] == 100
    assert nano(clamped.headers["x-tollhouse-cost-usd"]) == nano("0.1")
    assert nano(clamped.headers["x-tollhouse-budget-remaining-usd"]) == 0
    assert (asked.status, asked.code) == (402, "insufficient_quota")
    assert len(fake.received) == 1


async def test_money_that_is_only_held_is_busy_and_money_that_is_spent_is_402(lab: Lab) -> None:
    """While requests in flight hold the rest: 429 budget_busy with Retry-After. Once it is spent: 402."""
    fake = await lab.fake()
    await lab.model("m", fake.url, PRICE)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "0.10")
    gate = fake.gates["m"] = asyncio.Event()
    headers = {"authorization": f"Bearer {key.secret}"}
    first = asyncio.create_task(lab.http.call("POST", "/v1/chat/completions", body(False), headers))
    await eventually(lambda: asyncio.sleep(0, len(fake.received)), lambda count: count == 1)
    held = await lab.http.call("POST", "/v1/chat/completions", body(False), headers)
    balance = await eventually(lambda: lab.balance("acme", "cap"), lambda balance: bool(balance.held))
    assert (balance.held, balance.consumed) == (WORST, 0)
    gate.set()
    served = await first
    spent = await eventually(
        lambda: lab.http.call("POST", "/v1/chat/completions", body(False), headers), lambda a: a.code != "budget_busy"
    )
    assert (held.status, held.code, int(held.headers["retry-after"]) >= 1) == (429, "budget_busy", True)
    assert served.status == 200
    assert nano(served.headers["x-tollhouse-cost-usd"]) == COST
    assert nano(served.headers["x-tollhouse-budget-remaining-usd"]) == nano("0.05")
    assert (spent.status, spent.code) == (402, "insufficient_quota")
    error = spent.json()["error"]
    assert {"message", "type", "param", "code", "budget"} <= set(error)
    assert error["budget"] == {
        "id": "cap",
        "scope": {"kind": "org", "id": None},
        "limit_usd": "0.100000000",
        "consumed_usd": "0.050000000",
        "held_usd": "0.000000000",
        "period_end": None,
    }
    assert spent.headers["x-should-retry"] == "false"
    assert len(fake.received) == 1
