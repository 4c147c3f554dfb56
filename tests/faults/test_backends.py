"""Backends that fail in every way there is, under load: each request is answered or refused by the rules, nothing is charged that
was not served, and nothing that was served is missing.
"""

import asyncio
import csv
import io
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.backend import Backend
from tests.exact import cost, nano
from tests.http1 import Answer
from tests.lab import PRICE, Key, Lab
from tests.pressure import Pressure, pressure
from tests.waiting import eventually, until

CALLERS = 32
TERMS: Mapping[str, Mapping[str, Any]] = {"stalls": {"first_byte_seconds": 0.5}}


def spoil(backends: Mapping[str, Backend]) -> None:
    """Each fails in its own way, about as often as it serves."""
    backends["refuses"].refusing["m"] = 503
    backends["stalls"].failing["m"] = "stall"
    backends["drops"].cutting.add("m")  # after it served half of the answer, which it charges for
    backends["breaks"].failing["m"] = "error behind the head"
    for name, share in (("refuses", 0.5), ("stalls", 0.2), ("drops", 0.4), ("breaks", 0.4)):
        backends[name].share = share


async def house(lab: Lab) -> tuple[dict[str, Backend], Key]:
    """A model of one tier with four backends, and a hard budget with room for everything."""
    backends = {name: await lab.fake() for name in ("refuses", "stalls", "drops", "breaks")}
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "1000")
    for name, backend in backends.items():
        terms = {"url": backend.url, "protocol": "openai", "timeout_seconds": 30, **TERMS.get(name, {})}
        await lab.admin("PUT", f"/backends/{name}", terms)
    routes = [{"backend": name, "upstream_model": "m"} for name in backends]
    await lab.admin("PUT", "/models/m", {"routes": routes, "max_output_tokens": 256, "context_tokens": 100_000})
    await lab.admin("PUT", "/prices/m", dict(PRICE))
    return backends, key


@pytest.mark.parametrize(
    ("requests", "patience"), [(600, 120.0), pytest.param(10_000, 1200.0, marks=pytest.mark.full)], ids=["600", "10000"]
)
async def test_failing_backends_cost_what_they_served(lab: Lab, requests: int, patience: float) -> None:
    """Half way one of them is killed: nothing begun after that reaches it. In the end the books equal the backends' counts,
    attempt by attempt and to the nano-dollar, once each backend's record was taken in."""
    backends, key = await house(lab)
    spoil(backends)
    states: Counter[str] = Counter()
    async with pressure(lab, key, "m", CALLERS) as load, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch(lab, states))
        await until(lambda: len(load.answers) >= requests // 2, "half of the answers", patience)
        await lab.admin("POST", "/backends/drops/kill")
        killed = time.monotonic()
        await until(lambda: len(load.answers) >= requests, "all answers", patience)
        watching.cancel()
    assert_answered(load)
    after = {answer.id for answer in load.begun_after(killed)}
    assert after
    assert not after & {request.id.partition(".")[0] for request in backends["drops"].received}
    assert states["closed"] > 0
    assert states["open"] + states["half_open"] + states["warming"] > 0

    books = await settled(lab, backends)
    served = served_by(backends)
    outcomes = Counter(row["outcome"] for row in books.values())
    assert set(outcomes) <= {"completed", "failed"}, outcomes
    charged = {attempt: nano(row["cost_usd"]) for attempt, row in books.items() if row["outcome"] == "completed"}
    assert charged == {attempt: cost(PRICE, *tokens) for attempt, tokens in served.items()}
    balance = await eventually(lambda: lab.balance("acme", "cap"), lambda now: not now.estimated and not now.held)
    assert (balance.consumed, balance.held, balance.estimated) == (sum(charged.values()), 0, 0)
    print(summary(load, backends, books, states))


def assert_answered(load: Pressure) -> None:
    """Whole, or with an error of ours; hardly any of the latter, for there were others to ask."""
    assert not load.cuts
    codes = Counter(outcome(answer) for answer in load.answers)
    assert set(codes) <= {"served", "upstream_error", "upstream_timeout"}
    assert codes["served"] > 0.8 * len(load.answers), codes


def outcome(answer: Answer) -> str:
    """``served``, or the code of what went wrong, which on a stream comes as its last event."""
    if answer.status != 200:
        return str(answer.code)
    if answer.headers["content-type"].startswith("application/json"):
        return "served" if answer.json()["usage"]["completion_tokens"] == 20 else "wrong"
    if answer.body.endswith(b"data: [DONE]\n\n"):
        return "served"
    return "upstream_error" if b'"code":"upstream_error"' in answer.body else "wrong"


def served_by(backends: Mapping[str, Backend]) -> dict[str, tuple[int, int]]:
    """What each attempt used, by the backends' own counts; no attempt was served twice, or reached a backend twice."""
    served: dict[str, tuple[int, int]] = {}
    for backend in backends.values():
        assert not served.keys() & backend.served.keys()
        assert max(backend.ids.values()) == 1
        served |= backend.served
    return served


async def settled(lab: Lab, backends: Mapping[str, Backend]) -> dict[str, dict[str, str]]:
    """The books by attempt, after each backend's record ended what was unconfirmed there: it was known where that is."""
    await eventually(lambda: attempts(lab), lambda rows: all(row["outcome"] != "open" for row in rows.values()))
    for name, backend in backends.items():
        record = [
            {"request_id": id, "prompt_tokens": prompt, "completion_tokens": completion}
            for id, (prompt, completion) in backend.served.items()
        ]
        await lab.admin("POST", "/reconcile", {"records": record, "backend": name})
    return await eventually(
        lambda: attempts(lab), lambda rows: all(row["outcome"] != "unconfirmed" for row in rows.values()), 120.0
    )


async def attempts(lab: Lab) -> dict[str, dict[str, str]]:
    text = (await lab.csv("/orgs/acme/requests?format=csv")).body.decode()
    return {row["attempt"]: row for row in csv.DictReader(io.StringIO(text))}


async def watch(lab: Lab, states: Counter[str]) -> None:
    """Which states the circuits were seen in; page and metrics are there whatever happens."""
    while True:
        page = (await lab.http.call("GET", "/backendz")).json()["backends"]
        states.update(state["circuit"] for state in page.values())
        assert await lab.metric("tollhouse_backend_circuit") >= 0
        await asyncio.sleep(0.02)


def summary(
    load: Pressure, backends: Mapping[str, Backend], books: Mapping[str, Mapping[str, str]], states: Counter[str]
) -> str:
    """What happened, for whoever reads the output of the full form."""
    return "\n".join(
        (
            f"answers {len(load.answers)}: {dict(Counter(outcome(answer) for answer in load.answers))}",
            f"attempts {len(books)}: {dict(Counter(row['outcome'] for row in books.values()))}",
            "backends: " + str({name: (len(b.received), len(b.served)) for name, b in backends.items()}),
            f"circuits seen: {dict(states)}",
            f"cost: {sum(nano(row['cost_usd'] or '0') for row in books.values())} nano-dollars, the backends' own count",
        )
    )
