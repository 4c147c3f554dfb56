"""How backends are used: caps, silences that end a request, prompt caches that are met again, and how this is shown."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.backend import Backend
from tests.lab import PRICE, Key, Lab
from tests.waiting import eventually


async def used(lab: Lab, backends: Mapping[str, tuple[str, Mapping[str, Any]]], tiers: bool = False) -> Key:
    """A model ``m`` on these backends: name to URL and terms. In one tier, or each in its own."""
    key = (await lab.org("acme"))["main"]
    routes = []
    for number, (name, (url, terms)) in enumerate(backends.items()):
        await lab.admin("PUT", f"/backends/{name}", {"url": url, "protocol": "openai", "timeout_seconds": 60, **terms})
        routes.append({"backend": name, "upstream_model": "m", "tier": number if tiers else 0})
    await lab.admin("PUT", "/models/m", {"routes": routes, "max_output_tokens": 256, "context_tokens": 100_000})
    await lab.admin("PUT", "/prices/m", dict(PRICE))
    return key


async def seen(lab: Lab) -> Any:
    """How the gateway sees its backends."""
    got = await lab.http.call("GET", "/backendz")
    assert got.status == 200
    return got.json()["backends"]


async def test_a_backend_has_as_many_requests_at_a_time_as_it_may(lab: Lab) -> None:
    """The next goes to another; without another it is refused as overloaded, with a word on when to come back."""
    small, spare = await lab.fake(), await lab.fake()
    small.gates["m"] = spare.gates["m"] = asyncio.Event()
    terms = {"max_concurrent": 2}
    key = await used(lab, {"small": (small.url, terms), "spare": (spare.url, {"max_concurrent": 1})}, tiers=True)
    asking = [asyncio.create_task(lab.chat(key, "m", max_tokens=5)) for _ in range(3)]
    await eventually(lambda: _counts(small, spare), lambda counts: counts == (2, 1))
    refused = await lab.chat(key, "m", max_tokens=5)
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "overloaded", "1")
    assert [doc["in_flight"] for doc in (await seen(lab)).values()] == [2, 1]
    small.gates["m"].set()
    assert {(await answer).status for answer in asking} == {200}
    assert _counted(small, spare) == (2, 1)
    assert [doc["in_flight"] for doc in (await seen(lab)).values()] == [0, 0]
    rows = await eventually(lambda: lab.rows("acme"), lambda rows: len(rows) == 4)
    assert Counter(row.outcome for row in rows) == {"completed": 3, "denied": 1}


async def test_a_backend_has_as_many_requests_a_minute_as_it_may(lab: Lab) -> None:
    """Whatever their fate."""
    few, rest = await lab.fake(), await lab.fake()
    key = await used(lab, {"few": (few.url, {"requests_per_minute": 5}), "rest": (rest.url, {})}, tiers=True)
    for _ in range(12):
        assert (await lab.chat(key, "m", max_tokens=5)).status == 200
    assert _counted(few, rest) == (5, 7)


async def test_a_backend_gets_the_cap_in_the_field_that_it_heeds(lab: Lab) -> None:
    """Whether the caller has a cap or not, and by whichever protocol he asks."""
    fake = await lab.fake()
    key = await used(lab, {"ollama": (fake.url, {"output_cap_field": "max_tokens"})})
    assert (await lab.chat(key, "m")).status == 200
    assert (await lab.chat(key, "m", max_completion_tokens=5)).status == 200
    asked = {"model": "m", "max_tokens": 6, "messages": [{"role": "user", "content": "hi"}]}
    assert (await lab.http.call("POST", "/v1/messages", asked, {"x-api-key": key.secret})).status == 200
    assert [(got.body.get("max_tokens"), got.body.get("max_completion_tokens")) for got in fake.received] == [
        (256, None),
        (5, None),
        (6, None),
    ]


async def test_a_backend_that_falls_silent_is_left_for_another(lab: Lab) -> None:
    """Before the first byte of a plain answer and of a stream."""
    silent, good = await lab.fake(), await lab.fake()
    silent.failing["m"] = "stall"
    key = await used(lab, {"silent": (silent.url, {"first_byte_seconds": 0.5}), "good": (good.url, {})}, tiers=True)
    for stream in (False, True):
        got = await lab.chat(key, "m", max_tokens=5, stream=stream)
        assert (got.status, got.headers["x-tollhouse-backend"]) == (200, "good")
    assert set(good.ids) == {f"{request.id}.2" for request in silent.received}


async def test_a_stream_that_falls_silent_ends_with_an_error_event(lab: Lab) -> None:
    """The caller has half an answer by then: nothing is tried elsewhere, and what it cost is unconfirmed."""
    silent, good = await lab.fake(), await lab.fake()
    silent.gates["m"] = asyncio.Event()
    key = await used(lab, {"silent": (silent.url, {"idle_seconds": 0.5}), "good": (good.url, {})}, tiers=True)
    got = await lab.chat(key, "m", max_tokens=5, stream=True)
    assert (got.status, got.headers["x-tollhouse-backend"], good.received) == (200, "silent", [])
    assert b'"code":"upstream_timeout"' in got.body.splitlines()[-2]
    assert b"[DONE]" not in got.body
    rows = await eventually(lambda: lab.rows("acme"), lambda rows: [row.outcome for row in rows] == ["unconfirmed"])
    assert [(row.outcome, row.code) for row in rows] == [("unconfirmed", "upstream_timeout")]


async def test_the_same_prompt_cache_is_met_again(lab: Lab) -> None:
    """By OpenAI's field or our header; without either, requests spread."""
    fakes = {name: await lab.fake() for name in ("a", "b", "c")}
    key = await used(lab, {name: (fake.url, {}) for name, fake in fakes.items()})

    async def spread(requests: int = 12, **asked: Any) -> set[str]:
        answers = [await lab.chat(key, "m", max_tokens=5, **asked) for _ in range(requests)]
        return {answer.headers["x-tollhouse-backend"] for answer in answers}

    assert len(await spread(prompt_cache_key="conversation-1")) == 1
    assert len(await spread(header_x_tollhouse_sticky="conversation-1")) == 1
    different = [await spread(prompt_cache_key=f"conversation-{number}") for number in range(8)]
    assert len(set().union(*different)) > 1
    assert await spread(100) == {"a", "b", "c"}  # one of three is left out once in 10^17 times


async def test_circuits_are_seen(lab: Lab) -> None:
    """In a page of JSON and in the metrics, by the backend's name. A broken one gets no more requests while another does well."""
    broken, good = await lab.fake(), await lab.fake()
    broken.refusing["m"] = 500
    key = await used(lab, {"broken": (broken.url, {}), "good": (good.url, {})}, tiers=True)
    for _ in range(30):
        assert (await lab.chat(key, "m", max_tokens=5)).status == 200
    assert len(broken.received) < 10
    states = await seen(lab)
    assert states["broken"]["circuit"] in ("open", "half_open")
    assert (states["good"]["circuit"], states["good"]["healthy"]) == ("closed", True)
    assert states["good"]["latency_ms"] > 0
    assert await lab.metric("tollhouse_backend_circuit", backend="broken") >= 2
    assert await lab.metric("tollhouse_backend_circuit", backend="good") == 0


async def test_a_backend_is_asked_for_its_health(lab: Lab) -> None:
    """Beside all requests, with its credential; an ill one gets requests only where there is no other."""
    ill, good = await lab.fake(), await lab.fake()
    ill.health = 503
    terms = {"health_path": "/models", "health_seconds": 0.5, "credential": "sk-up"}
    key = await used(lab, {"ill": (ill.url, terms), "good": (good.url, terms)}, tiers=True)
    await eventually(lambda: seen(lab), lambda states: states.get("ill", {}).get("healthy") is False)
    got = await lab.chat(key, "m", max_tokens=5)
    assert (got.status, got.headers["x-tollhouse-backend"], ill.received) == (200, "good", [])
    assert {(path, head) for path, head in ill.asked} == {("/v1/models", "Bearer sk-up")}
    await lab.admin("POST", "/backends/good/kill", {})
    assert (await lab.chat(key, "m", max_tokens=5)).headers["x-tollhouse-backend"] == "ill"
    ill.health = 200
    states = await eventually(lambda: seen(lab), lambda states: states["ill"]["healthy"])
    assert states["ill"]["healthy"]


async def _counts(*backends: Backend) -> tuple[int, ...]:
    return _counted(*backends)


def _counted(*backends: Backend) -> tuple[int, ...]:
    return tuple(len(backend.received) for backend in backends)
