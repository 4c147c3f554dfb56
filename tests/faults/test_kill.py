"""P2: what was served is on the books, once. kill -9 at random moments under mixed load loses nothing and bills nothing twice."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.exact import cost, dollars, nano
from tests.http1 import Answer, Cut, Http
from tests.lab import Balance, HelloService, Key, Lab, Row
from tests.waiting import PATIENCE, eventually, until

CALLERS = 24
ROOM, TIGHT = "1000", "0.1"
PRICES = {
    "steady": {"input_usd": "0.150001", "output_usd": "0.600007"},
    "flaky": {"input_usd": "3.000000007", "output_usd": "15.000000001"},
    "tight": {"input_usd": "30.000001", "output_usd": "60.000003"},
}
BACKENDS = {
    "steady": ("--ttft-ms", "3", "--ms-per-token", "0.2"),
    "flaky": ("--error-rate", "0.2", "--drop-rate", "0.2", "--ttft-ms", "2"),
    "tight": ("--ttft-ms", "20"),
}
ORG = {"steady": "acme", "flaky": "acme", "tight": "small"}
BUDGETS = (("acme", "cap", ROOM), ("acme", "team", ROOM), ("small", "cap", TIGHT))


@dataclass
class Seen:
    """What the callers got whole, by request id: completions with what they were told, and errors."""

    served: dict[str, Answer] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    answers: int = 0
    cut: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, model: str, answer: Answer) -> None:
        self.answers += 1
        if answer.id in self.model:
            self.wrong.append(f"two answers with one id: {answer.id}")
        self.model[answer.id] = model
        code = answer.code if answer.status != 200 else _failure_on_stream(answer)
        if code is None:
            self.served[answer.id] = answer
        elif code:
            self.refused[answer.id] = code
        else:
            self.wrong.append(f"a stream ended without [DONE] and without an error: {answer.id}")


@dataclass
class Attack:
    """A product under mixed load, its backends by the models they serve, and what everybody saw."""

    lab: Lab
    backends: dict[str, HelloService]
    keys: dict[str, Key]
    seen: Seen = field(default_factory=Seen)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    limits: dict[tuple[str, str], int] = field(default_factory=dict)
    """By org and budget, the highest limit so far, nano-dollars."""
    balances_read: int = 0
    ready: list[float] = field(default_factory=list)

    def journal(self) -> list[dict[str, Any]]:
        """Everything that the backends served, by their own record."""
        return [line for hello in self.backends.values() for line in hello.served()]


def _failure_on_stream(answer: Answer) -> str | None:
    """The code that a stream ended with, empty if it just ended; None for one that came to its ``[DONE]``, and for plain
    answers."""
    if answer.headers["content-type"].startswith("application/json"):
        return None
    events = answer.events()
    if events and events[-1] == "[DONE]":
        return None
    error = json.loads(events[-1]).get("error") if events else None
    return str(error["code"]) if error else ""


async def prepared(lab: Lab, timeout_seconds: float = 60) -> Attack:
    """Backends, models, organizations with keys and budgets, under nobody's load yet."""
    backends = {name: await lab.hello(name, *options) for name, options in BACKENDS.items()}
    for name, hello in backends.items():
        await lab.model(name, hello.url, PRICES[name], name, timeout_seconds)
    keys = await lab.org("acme", ("team", "rest"))
    keys |= await lab.org("small")
    for org, budget, limit in BUDGETS:
        await lab.budget(org, budget, limit, project="team" if budget == "team" else None)
    made = Attack(lab, backends, keys)
    made.limits = {(org, budget): nano(limit) for org, budget, limit in BUDGETS}
    return made


@contextlib.asynccontextmanager
async def attack() -> AsyncIterator[Attack]:
    """Callers of every kind, until the context ends; then what they were doing is finished."""
    async with Lab() as lab:
        made = await prepared(lab)
        made.up.set()
        async with asyncio.TaskGroup() as tasks:
            for number in range(CALLERS):
                tasks.create_task(caller(made, number))
            tasks.create_task(watch(made))
            yield made
            made.over.set()


async def caller(attack: Attack, number: int) -> None:
    """Asks in every way there is; after a cut it waits for the product to be back."""
    dice = random.Random(number)
    async with Http(attack.lab.url) as http:
        while not attack.over.is_set():
            await attack.up.wait()
            model = "tight" if number % 4 == 0 else dice.choice(("steady", "steady", "flaky"))
            try:
                answer = await ask(attack, http, model, dice)
            except Cut:
                attack.seen.cut += 1
                await asyncio.sleep(0.01)
                continue
            attack.seen.add(model, answer)
            if answer.status != 200:
                await asyncio.sleep(0.01)


async def ask(attack: Attack, http: Http, model: str, dice: random.Random) -> Answer:
    """One request of any size, plain or streamed, with usage or without."""
    key = attack.keys["main" if model == "tight" else dice.choice(("team", "rest"))]
    fields: dict[str, Any] = {"max_tokens": dice.randint(1, 60)}
    if dice.random() < 0.5:
        fields["stream"] = True
        if dice.random() < 0.5:
            fields["stream_options"] = {"include_usage": True}
    return await attack.lab.chat(key, model, "word " * dice.randint(1, 30), http, **fields)


async def watch(attack: Attack) -> None:
    """Reads every budget again and again: consumed + held never passes the highest limit that was ever in force."""
    headers = {"authorization": f"Bearer {attack.lab.admin_key}"}
    async with Http(attack.lab.url) as http:
        while not attack.over.is_set():
            for org, budget, _ in BUDGETS:
                with contextlib.suppress(Cut):
                    answer = await http.call("GET", f"/read/v1/orgs/{org}/budgets/{budget}", None, headers)
                    if answer.status == 200:
                        attack.balances_read += 1
                        doc = answer.json()
                        if nano(doc["consumed_usd"]) + nano(doc["held_usd"]) > attack.limits[org, budget]:
                            attack.seen.wrong.append(f"over its limit: {doc}")
            await asyncio.sleep(0.05)


async def strike(attack: Attack, dice: random.Random) -> None:
    """kill -9 after a random number of answers and a random moment more: the whole group, the main process alone, or once
    more while it starts. Then it is started on the same folder, and the budget that is always used up gets a little more."""
    lab, wanted = attack.lab, attack.seen.answers + dice.randint(20, 150)
    await until(lambda: attack.seen.answers >= wanted, "answers between two kills")
    if dice.random() < 0.3:  # else most kills would come before the views are up
        read = attack.balances_read + 2 * len(BUDGETS)
        await until(lambda: attack.balances_read >= read, "budgets read between two kills")
    await asyncio.sleep(dice.uniform(0, 0.03))
    attack.up.clear()
    match dice.choice(("group", "main", "main", "start")):
        case "group":
            await lab.product.kill()
        case "main":
            await lab.product.kill_main()
        case _:
            await lab.product.kill_main()
            await lab.product.spawn()
            await asyncio.sleep(dice.uniform(0, 1.0))
            await lab.product.kill_main()
    await lab.start()
    attack.ready.append(lab.product.ready_seconds)
    attack.up.set()
    attack.limits["small", "cap"] += nano(TIGHT)
    raised = {"limit_usd": dollars(attack.limits["small", "cap"]).removeprefix("$")}
    await lab.admin("PATCH", "/orgs/small/budgets/cap", raised)


async def quiet(attack: Attack) -> None:
    """Ends the backends, who first finish what they have begun: their journals are complete then."""
    for hello in attack.backends.values():
        assert await hello.child.stop() == 0


async def books(attack: Attack) -> dict[str, Row]:
    """All rows of both orgs, once the views are where the log is and nothing is open any more."""
    served = {line["request_id"] for line in attack.journal()} | set(attack.seen.served)

    async def rows() -> list[Row]:
        return await attack.lab.rows("acme") + await attack.lab.rows("small")

    def whole(rows: list[Row]) -> bool:
        return served <= {row.id for row in rows} and not any(row.outcome == "open" for row in rows)

    found = await eventually(rows, whole, PATIENCE * 2)
    assert not [row for row in found if row.outcome == "open"]
    ids = Counter(row.id for row in found)
    assert max(ids.values()) == 1, f"on the books more than once: {ids.most_common(3)}"
    return {row.id: row for row in found}


def compare(attack: Attack, rows: dict[str, Row]) -> None:
    """The books against the backends' journals and the callers' answers, id by id."""
    seen, lines = attack.seen, attack.journal()
    assert not seen.wrong
    exact = {line["request_id"]: _cost(line) for line in lines}
    assert len(exact) == len(lines), "a request was dispatched twice"
    for id, amount in exact.items():
        row = rows.get(id)
        assert row is not None, f"served and not on the books: {id}"
        assert row.outcome in ("completed", "unconfirmed"), f"served and {row.outcome}: {row}"
        if row.outcome == "completed":
            assert row.cost == amount, f"{row}; the backend served {dollars(amount)}"
        else:
            assert row.cost >= amount, f"{row} is below what the backend served: {dollars(amount)}"
    for id, answer in seen.served.items():
        assert rows[id].outcome == "completed", f"answered whole and {rows[id].outcome}: {id}"
        if "x-tollhouse-cost-usd" in answer.headers:
            assert nano(answer.headers["x-tollhouse-cost-usd"]) == rows[id].cost
    for row in rows.values():
        if row.outcome == "completed":
            assert row.id in exact, f"billed and never served: {row}"
    for id, code in seen.refused.items():
        if code == "upstream_error":
            assert rows[id].outcome in ("failed", "unconfirmed"), rows[id]
            assert (id in exact) == (rows[id].outcome == "unconfirmed"), rows[id]
        elif code == "upstream_timeout":
            assert rows[id].outcome == "unconfirmed", rows[id]
        else:
            assert id not in exact, f"refused with {code} and served all the same: {id}"
    for (org, _), limit in attack.limits.items():
        spent = sum(_cost(line) for line in lines if ORG[line["model"]] == org)
        assert spent <= limit, f"{org}: {dollars(spent)} served"


async def balances_agree(attack: Attack, rows: dict[str, Row]) -> None:
    """Every budget says what the rows of its scope add up to, holds nothing, and is within its limit."""
    lab = attack.lab
    for org in ("acme", "small"):
        mine = [row for row in rows.values() if ORG.get(row.model) == org]
        estimated = sum(row.cost for row in mine if row.outcome == "unconfirmed")
        consumed = estimated + sum(row.cost for row in mine if row.outcome == "completed")
        balance = await eventually(partial(lab.balance, org, "cap"), lambda balance: not balance.held)
        assert balance == Balance(attack.limits[org, "cap"], consumed, 0, estimated)
        assert consumed <= balance.limit


async def reconcile(attack: Attack) -> None:
    """Gives the books the backends' own records; afterwards the difference is exactly zero."""
    lab, record = attack.lab, attack.lab.folder / "record.ndjson"
    record.write_text("".join(f"{json.dumps(line)}\n" for line in attack.journal()))
    of = [word for backend in attack.backends for word in ("--backend", backend)]
    code, out, err = await lab.run("reconcile", "--file", str(record), *of, "-o", "json")
    assert code == 0, err
    rows = await eventually(
        lambda: books(attack), lambda rows: not any(row.outcome == "unconfirmed" for row in rows.values())
    )
    exact = {line["request_id"]: _cost(line) for line in attack.journal()}
    billed = {row.id: row.cost for row in rows.values() if row.outcome == "completed"}
    assert billed == exact
    assert sum(row.cost for row in rows.values()) == sum(exact.values())
    await balances_agree(attack, rows)
    print(f"reconciled: {out.strip()}; books minus backends: {dollars(sum(billed.values()) - sum(exact.values()))}")


async def kill_and_compare(rounds: int) -> None:
    seed = random.randrange(1 << 30)
    print(f"\nP2: seed {seed}")
    dice = random.Random(seed)
    async with attack() as made:
        for _ in range(rounds):
            await strike(made, dice)
        last = made.seen.answers + 50
        await until(lambda: made.seen.answers >= last, "answers after the last kill")
        made.over.set()
        await quiet(made)
        rows = await books(made)
        outcomes = Counter(row.outcome for row in rows.values())
        print(
            f"{rounds} kills: {len(made.journal())} served, {made.seen.answers} whole answers, {made.seen.cut} cut; "
            f"rows {dict(outcomes)}; balances read {made.balances_read} times\n"
            f"time to ready: median {sorted(made.ready)[rounds // 2]:.2f} s, most {max(made.ready):.2f} s "
            f"({', '.join(f'{seconds:.2f}' for seconds in made.ready[:10])} …)"
        )
        compare(made, rows)
        assert made.balances_read
        assert {"completed", "failed", "unconfirmed", "denied"} <= set(outcomes), "the load was not mixed"
        await balances_agree(made, rows)
        await reconcile(made)


def _cost(line: dict[str, Any]) -> int:
    return cost(PRICES[line["model"]], line["prompt_tokens"], line["completion_tokens"])


async def test_ten_kills_lose_nothing_and_bill_nothing_twice() -> None:
    """Every whole answer is on the books once at its exact cost; all that was served is completed at its cost or unconfirmed
    at no less; no budget is ever over its limit; reconciled with the backends' journals the difference is exactly zero."""
    await kill_and_compare(10)


@pytest.mark.full
async def test_a_hundred_kills_lose_nothing_and_bill_nothing_twice() -> None:
    """The same, a hundred times on one folder."""
    await kill_and_compare(100)


@pytest.mark.full
async def test_time_to_ready_with_a_hundred_thousand_past_requests() -> None:
    """A figure, not a limit: kill -9 on a folder with 100,000 requests, and how long the next start takes to be ready."""
    async with Lab() as lab:
        hello = await lab.hello()
        await lab.model("hello", hello.url)
        key = (await lab.org("acme"))["main"]
        await lab.budget("acme", "cap", ROOM)
        trace = lab.folder / "trace.csv"
        _write_trace(trace, 100_000)
        words = ("load", "--trace", str(trace), "--key", key.secret, "--concurrency", "64", "-o", "json")
        code, out, err = await lab.run(*words)
        assert code == 0, err
        assert len(hello.served()) == 100_000
        figures = []
        for _ in range(3):
            await lab.product.kill()
            await lab.start()
            figures.append(lab.product.ready_seconds)
            assert (await lab.chat(key, "hello")).status == 200
        told = ", ".join(f"{seconds:.2f} s" for seconds in figures)
        print(f"\nready after kill -9 with 100,000 past requests: {told} (load: {out.strip()})")


def _write_trace(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for number in range(rows):
            file.write(
                f"2023-11-16 18:{number // 60_000:02d}:{number // 1000 % 60:02d}.{number % 1000:03d}0000,10,10\n"
            )
