"""A model with several backends, of which the first fails in one way or the other: what the caller gets, and what is on the
books."""

import socket
from typing import Any

import pytest

from tests.lab import PRICE, Key, Lab
from tests.waiting import PATIENCE, eventually


async def routed(lab: Lab, *urls: str) -> Key:
    """A model ``m`` whose backends ``b0``, ``b1`` and so on are asked in this order, and a key with a hard budget."""
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "100")
    for number, url in enumerate(urls):
        terms = {"url": url, "protocol": "openai", "timeout_seconds": 30}
        await lab.admin("PUT", f"/backends/b{number}", terms)
    routes = [{"backend": f"b{n}", "upstream_model": "m", "tier": n} for n in range(len(urls))]
    await lab.admin("PUT", "/models/m", {"routes": routes, "max_output_tokens": 256, "context_tokens": 100_000})
    await lab.admin("PUT", "/prices/m", dict(PRICE))
    return key


async def explained(lab: Lab, key: Key, id: str) -> Any:
    """What became of a request, once it has ended."""

    async def ask() -> Any:
        got = await lab.http.call("GET", f"/v1/requests/{id}", None, {"authorization": f"Bearer {key.secret}"})
        return got.json() if got.status == 200 else {}

    return await eventually(ask, lambda doc: doc.get("outcome") not in (None, "open"), 2 * PATIENCE)


def tried(attempt: Any) -> list[tuple[str, int, str | None]]:
    assert all(one["ms"] > 0 for one in attempt["tries"])
    return [(one["backend"], one["status"], one["error"]) for one in attempt["tries"]]


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("stream", [False, True])
async def test_what_cost_nothing_and_what_served_are_tries_of_one_attempt(lab: Lab, stream: bool) -> None:
    """A backend that is not there and one that is broken: one hold, one fact, three tries, charged once."""
    broken, good = await lab.fake(), await lab.fake()
    broken.refusing["m"] = 503
    key = await routed(lab, f"http://127.0.0.1:{unused_port()}/v1", broken.url, good.url)
    got = await lab.chat(key, "m", max_tokens=7, stream=stream)
    assert (got.status, got.headers["x-tollhouse-backend"]) == (200, "b2")
    doc = await explained(lab, key, got.id)
    (attempt,) = doc["attempts"]
    assert (doc["outcome"], doc["backend"], attempt["attempt"]) == ("completed", "b2", got.id)
    assert tried(attempt) == [("b0", 0, "upstream_error"), ("b1", 503, None), ("b2", 200, None)]
    assert (set(broken.ids), set(good.ids)) == ({got.id}, {got.id})
    assert (await lab.balance("acme", "cap")).held == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_knows_is_an_attempt_that_stays(lab: Lab, stream: bool) -> None:
    """The first backend breaks off under way: its attempt keeps its whole hold until it is reconciled, the second is charged
    by itself. An Idempotency-Key is used up by the first."""
    good = await lab.fake()
    torn = await torn_backend(lab)
    key = await routed(lab, torn, good.url)
    once: dict[str, Any] = {"header_idempotency_key": "once", "max_tokens": 7, "stream": stream}
    got = await lab.chat(key, "m", **once)
    assert (got.status, got.headers["x-tollhouse-backend"]) == (200, "b1")
    doc = await explained(lab, key, got.id)
    first, second = doc["attempts"]
    assert [(a["attempt"], a["outcome"]) for a in (first, second)] == [
        (got.id, "unconfirmed"), (f"{got.id}.2", "completed"),
    ]  # fmt: skip
    assert (doc["id"], doc["outcome"], first["backend"], tried(second)) == (
        got.id,
        "completed",
        "b0",
        [("b1", 200, None)],
    )
    assert set(good.ids) == {f"{got.id}.2"}
    again = await lab.chat(key, "m", **once)
    assert (again.status, again.json()["error"]["request_id"]) == (409, got.id)
    balance = await lab.balance("acme", "cap")
    assert balance.estimated > 0
    done = await lab.admin("POST", "/reconcile", {"records": [], "backend": "b0"})
    assert done == {"completed": 0, "not_served": 1, "left": 0}
    settled = await eventually(lambda: lab.balance("acme", "cap"), lambda now: not now.estimated)
    assert settled.consumed == balance.consumed - balance.estimated > 0


async def test_a_fault_that_is_the_callers_is_passed_on_at_once(lab: Lab) -> None:
    """No other backend is asked."""
    strict, good = await lab.fake(), await lab.fake()
    strict.refusing["m"] = 422
    key = await routed(lab, strict.url, good.url)
    got = await lab.chat(key, "m")
    assert (got.status, got.code, good.received) == (422, "refused", [])


async def test_a_second_attempt_needs_a_hold_of_its_own(lab: Lab) -> None:
    """The budget has room for one: the caller hears that the backend failed."""
    torn, good = await torn_backend(lab), await lab.fake()
    key = await routed(lab, torn, good.url)
    await lab.budget("acme", "tight", "0.0002")
    got = await lab.chat(key, "m", max_tokens=200)
    assert (got.status, got.code, good.received) == (502, "upstream_error", [])


async def torn_backend(lab: Lab) -> str:
    """One that takes requests, begins to answer, and closes the connection."""
    torn = await lab.fake()
    torn.failing["m"] = "drop behind the head"
    return torn.url
