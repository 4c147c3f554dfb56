"""Models that an organization wants instead: what the caller is told, what it is charged, and what the books say."""

from functools import partial
from typing import Any

from tests.backend import Backend
from tests.lab import Key, Lab
from tests.waiting import PATIENCE, eventually

DEAR = {"input_usd": "100", "output_usd": "100"}
CHEAP = {"input_usd": "1", "output_usd": "1"}


async def house(lab: Lab, reason: str, to: str = "small", models: Any = None) -> tuple[Backend, Key]:
    """A dear model of a short context, a cheap one of a long one, and an organization that wants the second for `reason`."""
    fake = await lab.fake()
    await lab.org("acme")
    await lab.model("large", fake.url, DEAR)
    await lab.model("small", fake.url, CHEAP)
    for name, context in (("large", 300), ("small", 100_000)):
        routes = [{"backend": "fake", "upstream_model": name}]
        await lab.admin(
            "PUT", f"/models/{name}", {"routes": routes, "max_output_tokens": 256, "context_tokens": context}
        )
    await lab.admin("PATCH", "/orgs/acme", {"fallbacks": {"large": {reason: to}}})
    return fake, await lab.key("acme", "main", models=models)


async def explained(lab: Lab, key: Key, id: str) -> Any:
    async def ask() -> Any:
        got = await lab.http.call("GET", f"/v1/requests/{id}", None, {"authorization": f"Bearer {key.secret}"})
        return got.json() if got.status == 200 else {}

    return await eventually(ask, lambda doc: doc.get("outcome") not in (None, "open"), 2 * PATIENCE)


async def test_a_budget_that_cannot_pay_for_the_dear_model_pays_for_the_cheap_one(lab: Lab) -> None:
    """At its price, said in a header and on the fact; a key that may not use it is refused as before, and so is everybody once
    there is no money for that one either."""
    fake, key = await house(lab, "budget_exhausted")
    await lab.budget("acme", "cap", "0.002")
    for stream in (False, True):
        got = await lab.chat(key, "large", max_tokens=20, stream=stream)
        assert (got.status, got.headers.get("x-tollhouse-fallback-model")) == (200, "small")
        doc = await explained(lab, key, got.id)
        (attempt,) = doc["attempts"]
        admission = attempt["admission"]
        assert (doc["outcome"], doc["model"]) == ("completed", "small")
        assert (admission["asked_model"], admission["fallback"]) == ("large", "budget_exhausted")
        assert doc["cost_usd"] == "0.000023000"
    assert {request.model for request in fake.received} == {"small"}
    only = await lab.key("acme", "main", models=["large"])
    refused = await lab.chat(only, "large", max_tokens=20)
    assert (refused.status, refused.code) == (402, "insufficient_quota")
    spent = await lab.chat(key, "large", max_tokens=2000)
    assert (spent.status, spent.json()["error"]["budget"]["id"]) == (402, "cap")
    plain = await lab.chat(key, "small", max_tokens=20)
    assert (plain.status, plain.headers.get("x-tollhouse-fallback-model")) == (200, None)


async def test_a_request_that_is_too_long_is_served_by_the_longer_model(lab: Lab) -> None:
    """Before it is sent, where its length says so; after a backend's own word, as an attempt of its own."""
    fake, key = await house(lab, "context_window")
    long = await lab.chat(key, "large", "word " * 1000, max_tokens=5)
    assert (long.status, long.headers["x-tollhouse-fallback-model"]) == (200, "small")
    assert [request.model for request in fake.received] == ["small"]
    fake.too_long.add("large")
    got = await lab.chat(key, "large", max_tokens=5)
    assert (got.status, got.headers["x-tollhouse-fallback-model"]) == (200, "small")
    doc = await explained(lab, key, got.id)
    told = [(one["attempt"], one["model"], one["outcome"], one["status"]) for one in doc["attempts"]]
    assert told == [(got.id, "large", "failed", 400), (f"{got.id}.2", "small", "completed", 200)]
    await lab.admin("PATCH", "/orgs/acme", {"fallbacks": {}})
    refused = await lab.chat(key, "large", max_tokens=5)
    assert (refused.status, refused.code) == (400, "context_length_exceeded")


async def test_a_soft_budget_past_its_limit_degrades_the_next_request(lab: Lab) -> None:
    """And a higher limit ends that."""
    _, key = await house(lab, "soft_budget")
    body = {"scope": {"kind": "org"}, "limit_usd": "0.001", "period": "lifetime", "mode": "soft"}
    await lab.admin("PUT", "/orgs/acme/budgets/team", body)
    served = []
    for _ in range(4):
        got = await lab.chat(key, "large", max_tokens=20)
        served.append(got.headers.get("x-tollhouse-fallback-model", "large"))
        settled = got.headers["x-tollhouse-position"]
        await eventually(partial(lab.balance, "acme", "team", settled), lambda now: not now.held)
    # the first crosses the limit, the second shows that it is crossed
    assert served == ["large", "large", "small", "small"]
    await lab.admin("PATCH", "/orgs/acme/budgets/team", {"limit_usd": "5"})
    got = await lab.chat(key, "large", max_tokens=20)
    assert "x-tollhouse-fallback-model" not in got.headers


async def test_fallbacks_are_shown_and_checked(lab: Lab) -> None:
    """By the command API and the command line, the field at fault by its name."""
    await lab.org("acme")
    wanted = {"large": {"budget_exhausted": "small", "context_window": "long"}}
    made = await lab.admin("PATCH", "/orgs/acme", {"fallbacks": wanted})
    assert made["fallbacks"] == wanted
    for bad, field in (
        ({"m": {"boredom": "n"}}, "fallbacks.m.boredom"),
        ({"m": {"soft_budget": "m"}}, "fallbacks.m.soft_budget"),
        ({"m": {"soft_budget": 7}}, "fallbacks.m.soft_budget"),
    ):
        answer = await lab.command("PATCH", "/orgs/acme", {"fallbacks": bad})
        assert (answer.status, [found.removesuffix(".[key]") for found in answer.fields]) == (400, [field])
    code, out, _ = await lab.run("org", "update", "acme", "--fallback", "large:soft_budget=small", "-o", "json")
    assert (code, '"soft_budget": "small"' in out) == (0, True)
