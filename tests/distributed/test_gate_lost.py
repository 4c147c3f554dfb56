"""P1 and P8 on two gateways that share a gate, which is lost in the middle: nobody overspends, nothing is dispatched twice."""

import asyncio
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from commands.admission import DELTA
from domain.envelope import decode
from domain.fold import Books
from domain.registry import decode_event
from tests.distributed.gate import WAYS, LosableGate, losable_gate
from tests.distributed.house import House, Process, unique
from tests.distributed.switch import switch
from tests.e2e.test_overspend import COST, PRICE, WORST, body
from tests.exact import cost, dollars, nano
from tests.http1 import Answer, Http
from tests.lab import HelloService, Key
from tests.waiting import eventually, until

LIMIT = "5"
CLIENTS = 1000

SHORT = (WAYS[0], WAYS[3])
"""The ways of the short form: they differ most."""


@dataclass
class Storm:
    """What the clients saw."""

    served: list[str] = field(default_factory=list)
    exhausted: int = 0
    busy: int = 0
    unready: Counter[str | None] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost_for: float = 0.0

    def judge(self, answer: Answer) -> bool:
        """Counts an answer; True when its client is done."""
        match answer.status, answer.code:
            case 200, None:
                self.served.append(answer.id)
                return True
            case 402, "insufficient_quota":
                self.exhausted += 1
                if nano(answer.json()["error"]["budget"]["consumed_usd"]) + WORST <= nano(LIMIT):
                    self.wrong.append(f"402 that may yet be paid: {answer.body!r}")
                return True
            case 429, "budget_busy":
                self.busy += 1
                return False
            case 503, code if code in ("gate_unavailable", "not_ready"):
                self.unready[code] += 1
                return False
            case status, code:
                self.wrong.append(f"{status} {code}")
                return True


def call_of(model: str, stream: bool = False) -> dict[str, Any]:
    """As in `tests.e2e.test_overspend`, for a model with a longer name."""
    made = body(stream) | {"model": model}
    made["messages"][0]["content"] = made["messages"][0]["content"][: -(len(model) - 1)]
    return made


async def client(http: Http, key: Key, model: str, stream: bool, storm: Storm) -> None:
    """One caller: again and again while the money is held or the gate is lost, until it is served or refused for good."""
    headers = {"authorization": f"Bearer {key.secret}"}
    text = call_of(model, stream)
    while True:
        answer = await http.call("POST", "/v1/chat/completions", text, headers)
        if storm.judge(answer):
            return
        # While the gate is lost they wait as they are told: this process is also the way to Redis, which must not stand still.
        await asyncio.sleep(
            random.uniform(0.05, 0.5) if answer.status == 429 else random.uniform(0.7, 1.3) * after(answer)
        )


def after(answer: Answer) -> float:
    """The seconds that a refusal asks to wait."""
    return float(answer.headers["retry-after"])


async def scene(house: House) -> tuple[HelloService, str, Key, str]:
    """The Hello service, an organization with a budget, its key and a model."""
    hello = await house.hello("hello", "--ttft-ms", "40")
    org, model = unique("org"), unique("m")
    await house.model(model, hello.url, PRICE, backend=unique("backend"))
    key = (await house.org(org))["main"]
    await house.budget(org, "cap", LIMIT)
    return hello, org, key, model


def start(house: House, key: Key, model: str, storm: Storm, clients: int) -> "list[asyncio.Task[None]]":
    """The clients, half of them at each gateway."""
    https = [gateway.http for gateway in house.gateways]
    return [asyncio.create_task(client(https[n % 2], key, model, n % 3 == 0, storm)) for n in range(clients)]


async def storm_with_a_loss(house: House, gate: LosableGate, way: str) -> tuple[HelloService, str, Storm]:
    """A storm in the middle of which the gate is lost."""
    await gate.begin(gateways=2)
    hello, org, key, model = await scene(house)
    gate.prepare(way)
    await gate.age(way)
    storm = Storm()
    callers = start(house, key, model, storm, CLIENTS)
    await until(lambda: len(storm.served) >= 30, "30 served")
    lost_at, other = time.monotonic(), house.gateways[1]
    await gate.lose(way)
    assert await eventually(other.reasons, bool)
    assert not await eventually(other.reasons, lambda reasons: not reasons)
    storm.lost_for = time.monotonic() - lost_at
    await gate.heal(way)
    async with asyncio.timeout(120):
        await asyncio.gather(*callers)
    return hello, org, storm


async def check(house: House, hello: HelloService, org: str, storm: Storm, way: str) -> None:
    """The books of the log, and the backend's own, agree; no prefix of the log is over the limit."""
    lines = hello.served()
    spent = sum(cost(PRICE, line["prompt_tokens"], line["completion_tokens"]) for line in lines)
    facts = await house.facts(org)
    print(
        f"\nP1, gate {way}: served {len(lines)} calls, {dollars(spent)} of ${LIMIT}; busy {storm.busy}, 402 "
        f"{storm.exhausted}, 503 {dict(storm.unready)}; open again {storm.lost_for:.1f} s after the loss"
    )
    assert not storm.wrong, Counter(storm.wrong)
    completed = [fact for fact in facts if fact.type == "RequestCompleted"]
    assert sorted(fact.data["attempt"] for fact in completed) == sorted(line["request_id"] for line in lines)
    assert sorted(storm.served) == sorted(line["request_id"] for line in lines)
    assert sum(fact.data["cost"] for fact in completed) == spent == len(lines) * COST
    assert nano("4.90") < spent <= nano("5.000000000")
    assert storm.unready["gate_unavailable"], "the loss was not seen by anybody"
    partition = facts[0].partition
    books, most = Books(), 0
    for record in await house.partition(partition):
        books.apply(decode_event(decode(record.value)))
        used = [b.consumed + b.held for (of, _, _), b in books.buckets.items() if of == org]
        most = max(most, *used, 0)
        assert most <= nano(LIMIT), f"at offset {record.offset} {dollars(most)} are used"
    assert books.epoch >= 2


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in SHORT else pytest.mark.full, id=way.replace(" ", "-")) for way in WAYS]
)
async def test_nobody_overspends_when_the_gate_is_lost(house: House, way: str) -> None:
    """Many clients at two gateways on $5, calls of $0.05 that hold $0.10; in the middle the gate is lost. It is opened again by
    itself, the budget is used up and never exceeded, at no position of the log, and every call served is on the books once."""
    async with losable_gate(house) as gate:
        hello, org, storm = await storm_with_a_loss(house, gate, way)
        await check(house, hello, org, storm, way)


async def test_a_request_repeated_at_both_gateways_is_dispatched_once(house: House) -> None:
    """The same Idempotency-Key at both gateways at once, and again after the gate was lost: one is dispatched, the others are
    told its id."""
    fake = await house.fake()
    async with losable_gate(house) as gate:
        await gate.begin(gateways=2)
        org, model = unique("org"), unique("m")
        await house.model(model, fake.url, backend=unique("backend"))
        key = (await house.org(org))["main"]
        await house.budget(org, "cap", "5")

        async def ask(number: int, name: str) -> Answer:
            http = house.gateways[number % 2].http
            return await house.chat(key, model, http=http, max_tokens=5, header_idempotency_key=name)

        names = [f"order-{number}" for number in range(10)]
        first = await asyncio.gather(*(ask(number, name) for name in names for number in range(4)))
        await gate.lose(WAYS[0])
        await gate.opened_again()
        again = await asyncio.gather(*(ask(number, name) for name in names for number in range(2)))
        served = [answer.id for answer in first if answer.status == 200]
        assert len(served) == len(names)
        refused = [answer for answer in (*first, *again) if answer.status != 200]
        assert {(answer.status, answer.code) for answer in refused} == {(409, "duplicate_request")}
        assert {answer.json()["error"]["request_id"] for answer in refused} == set(served)
        assert fake.ids == Counter(served)


@pytest.mark.parametrize("end", ["killed", "standing still"])
async def test_another_gatekeeper_goes_on_where_one_was_stopped(house: House, end: str) -> None:
    """Of two gatekeepers the one that opens the lost gate is killed, or stands still and goes on later, in the middle of it: the
    other one opens the gate, and nobody overspends."""
    async with losable_gate(house) as gate:
        await gate.begin(gateways=2, gatekeepers=2)
        hello, org, key, model = await scene(house)
        storm = Storm()
        callers = start(house, key, model, storm, CLIENTS)
        await until(lambda: len(storm.served) >= 30, "30 served")
        lost_at, before = time.monotonic(), [opening(keeper) for keeper in house.gatekeepers]
        await gate.lose(WAYS[0])
        await until(lambda: before != [opening(keeper) for keeper in house.gatekeepers], "somebody opens it")
        (number,) = [n for n, keeper in enumerate(house.gatekeepers) if opening(keeper) != before[n]]
        first = house.gatekeepers[number].child
        await asyncio.sleep(1.0)  # fenced, and waiting for what may be under way
        if end == "killed":
            await first.kill()
        else:
            first.signal(signal.SIGSTOP)
        assert not await eventually(house.gateways[0].reasons, lambda reasons: not reasons)
        storm.lost_for = time.monotonic() - lost_at
        if end == "standing still":
            first.signal(signal.SIGCONT)
        async with asyncio.timeout(120):
            await asyncio.gather(*callers)
        await check(house, hello, org, storm, f"lost, its gatekeeper {end}")
        assert opening(house.gatekeepers[1 - number]) > before[1 - number]


async def test_what_a_gateway_left_behind_admitted_counts_in_the_new_gate(house: House) -> None:
    """A gateway is left behind with the old primary, and its appends are held up for most of the time that an admission may take;
    then they arrive, and it dispatches. The new gate must not have opened without them: both gateways together stay within the
    budget, however eagerly the other one spends."""
    broker = urlsplit(f"//{house.environ['TOLLHOUSE_KAFKA']}").port
    async with losable_gate(house) as gate, switch(broker, kafka=True) as cable:
        await gate.begin(gateways=2, kafka=cable.port)
        hello, org, key, model = await scene(house)
        await house.budget(org, "small", "1")
        behind, other = (gateway.http for gateway in house.gateways)
        gate.prepare(WAYS[3])
        await gate.age(WAYS[3])
        cable.passing.clear()
        await gate.lose(WAYS[3])
        held_up = [asyncio.create_task(once(behind, key, model)) for _ in range(9)]
        try:
            async with asyncio.timeout(DELTA - 0.4):
                await eventually(lambda: once(other, key, model), lambda answer: answer.status == 200)
                await spend(other, key, model)
        except TimeoutError:
            pass  # as it should be: the new gate is not open yet
        cable.passing.set()
        late = [answer.status for answer in await asyncio.gather(*held_up)]
        assert late.count(200) > 0, late
        await eventually(lambda: once(other, key, model), lambda answer: answer.status == 200)
        await spend(other, key, model)
        spent = sum(cost(PRICE, line["prompt_tokens"], line["completion_tokens"]) for line in hello.served())
        print(f"\nP1: {late.count(200)} calls of the gateway left behind, {dollars(spent)} of $1 in all")
        assert nano("0.90") < spent <= nano("1.00")


async def once(http: Http, key: Key, model: str) -> Answer:
    """One call of $0.05 that holds $0.10."""
    return await http.call("POST", "/v1/chat/completions", call_of(model), {"authorization": f"Bearer {key.secret}"})


async def spend(http: Http, key: Key, model: str) -> None:
    """Calls until the budget is exhausted."""
    end = await eventually(lambda: once(http, key, model), lambda answer: answer.code == "insufficient_quota")
    assert end.code == "insufficient_quota", end.body


def opening(gatekeeper: Process) -> int:
    """How often it has begun to open a gate."""
    return gatekeeper.child.log.read_text().count("opening it")
