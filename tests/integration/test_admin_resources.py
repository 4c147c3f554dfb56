"""Each resource of the command API through its life."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from commands.ports import Overdue
from domain.envelope import Envelope, decode, encode
from domain.facts import RequestAdmitted
from tests.admin_house import BUDGET, NOON, House, admin_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with admin_house(tmp_path) as made:
        yield made


async def test_a_credential_goes_in_and_never_comes_out(house: House) -> None:
    """Not in answers, not in the journal's bytes; left out it stays, null removes it."""
    backend = {"url": "https://api.example.com/v1", "protocol": "openai"}
    made = await house.call("PUT", "/backends/b", {**backend, "credential": "sk-upstream-1"})
    assert "credential" not in made.json()
    assert made.json()["has_credential"] is True
    assert all(b"sk-upstream-1" not in stored.body for stored in house.journal.after(0, 100))
    assert (await house.ok("PUT", "/backends/b", {**backend, "weight": 2}))["has_credential"] is True
    assert (await house.ok("PUT", "/backends/b", {**backend, "credential": None}))["has_credential"] is False


async def test_backends_are_drained_killed_and_restored(house: House) -> None:
    """Changing how it is reached does not restore it."""
    backend = {"url": "https://api.example.com/v1", "protocol": "openai"}
    await house.ok("PUT", "/backends/b", backend)
    for verb, state in (("drain", "drained"), ("kill", "killed"), ("restore", "active"), ("kill", "killed")):
        assert (await house.ok("POST", f"/backends/b/{verb}"))["state"] == state
    assert (await house.ok("PUT", "/backends/b", {**backend, "weight": 3}))["state"] == "killed"


async def test_a_key_is_issued_limited_rotated_and_revoked(house: House) -> None:
    """The secret is shown once; a revoked key stays visible and refuses to change."""
    await house.org()
    user = await house.ok("POST", "/orgs/acme/users", {"email": "a@example.com", "role": "member"})
    issued = await house.ok(
        "POST",
        "/orgs/acme/keys",
        {
            "name": "k",
            "project": "main",
            "user": user["id"],
            "models": ["m"],
            "limits": {"requests_per_minute": 5, "concurrent": 2},
            "expires_at": "2027-01-01T00:00:00Z",
        },
    )
    path = f"/orgs/acme/keys/{issued['id']}"
    shown = await house.ok("GET", path)
    assert {**shown, "secret": issued["secret"]} == issued
    assert shown["redacted"].endswith(issued["secret"][-4:])
    patched = await house.ok("PATCH", path, {"limits": {"concurrent": None, "tokens_per_minute": 9}, "models": None})
    assert patched["limits"] == {"requests_per_minute": 5, "tokens_per_minute": 9, "concurrent": None}
    assert patched["models"] is None
    rotated = await house.ok("POST", f"{path}/rotate", {"grace_seconds": 60})
    assert rotated["secret"] != issued["secret"]
    assert (await house.ok("POST", f"{path}/revoke"))["revoked"] is True
    await house.refused(409, "key_revoked", "POST", f"{path}/rotate")
    assert [key["revoked"] for key in (await house.ok("GET", "/orgs/acme/keys"))["data"]] == [True]


async def test_limits_are_patched_field_by_field(house: House) -> None:
    """Of organizations, projects and users: what is left out stays, null removes; of an organization each model too."""
    await house.org()
    user = (await house.ok("POST", "/orgs/acme/users", {"email": "a@example.com", "limits": {"concurrent": 2}}))["id"]
    none = {"requests_per_minute": None, "tokens_per_minute": None, "concurrent": None}
    for path, first in (("/orgs/acme/projects/main", none), (f"/orgs/acme/users/{user}", {**none, "concurrent": 2})):
        assert (await house.ok("GET", path))["limits"] == first
        limited = await house.ok("PATCH", path, {"limits": {"requests_per_minute": 5}})
        assert limited["limits"] == {**first, "requests_per_minute": 5}
        limited = await house.ok("PATCH", path, {"limits": {"requests_per_minute": None, "tokens_per_minute": 9}})
        assert limited["limits"] == {**first, "tokens_per_minute": 9}
        assert (await house.ok("PATCH", path, {"limits": None}))["limits"] == none
    org = "/orgs/acme"
    made = await house.ok("PATCH", org, {"limits": {"concurrent": 3, "models": {"m": {"concurrent": 1}}}})
    assert made["limits"] == {**none, "concurrent": 3, "models": {"m": {**none, "concurrent": 1}}}
    more = {"models": {"m": {"tokens_per_minute": 7}, "n": {"requests_per_minute": 1}}}
    made = await house.ok("PATCH", org, {"limits": more, "name": "Acme Inc"})
    assert made["limits"] == {
        **none,
        "concurrent": 3,
        "models": {
            "m": {**none, "concurrent": 1, "tokens_per_minute": 7},
            "n": {**none, "requests_per_minute": 1},
        },
    }
    made = await house.ok("PATCH", org, {"limits": {"concurrent": None, "models": {"m": None}}})
    assert made["limits"] == {**none, "models": {"n": {**none, "requests_per_minute": 1}}}
    assert (await house.ok("PATCH", org, {"limits": {"models": None}}))["limits"] == {**none, "models": {}}
    bad = {"limits": {"models": {"m": {"concurrent": 0}}}}
    assert await house.refused(400, "invalid_field", "PATCH", org, bad) == ["limits.models.m.concurrent"]
    await house.refused(404, "not_found", "PATCH", "/orgs/nobody", {"limits": {"concurrent": 1}})
    await house.refused(404, "not_found", "PATCH", "/orgs/acme/projects/nothing", {"limits": {"concurrent": 1}})


async def test_a_model_is_published_with_its_limits(house: House) -> None:
    """They are shown with it, and gone when it is published without."""
    await house.ok("PUT", "/backends/b", {"url": "http://h/v1", "protocol": "openai"})
    terms = {"routes": [{"backend": "b", "upstream_model": "u"}], "max_output_tokens": 1, "context_tokens": 2}
    none = {"requests_per_minute": None, "tokens_per_minute": None, "concurrent": None}
    made = await house.ok("PUT", "/models/m", {**terms, "limits": {"concurrent": 4}})
    assert made["limits"] == {**none, "concurrent": 4}
    assert (await house.ok("PUT", "/models/m", terms))["limits"] == none


async def test_a_budget_keeps_its_scope_and_period_for_life(house: House) -> None:
    """Changing them is 409; removed and set again it may differ."""
    await house.org()
    path = "/orgs/acme/budgets/cap"
    made = await house.ok("PUT", path, BUDGET)
    assert (made["limit_usd"], made["timezone"], made["thresholds"]) == (
        "5.000000000",
        "Europe/Vienna",
        [0.5, 0.8, 1.0],
    )
    for change in (
        {"period": "day"},
        {"timezone": "UTC"},
        {"week_start": 3},
        {"scope": {"kind": "project", "id": "main"}},
    ):
        await house.refused(409, "budget_scope_fixed", "PUT", path, {**BUDGET, **change})
        await house.refused(409, "budget_scope_fixed", "PATCH", path, change)
    assert (await house.ok("PATCH", path, {"limit_usd": "2.5"}))["limit_usd"] == "2.500000000"
    await house.ok("DELETE", path)
    await house.refused(404, "not_found", "PATCH", path, {"limit_usd": "1"})
    again = await house.ok("PUT", path, {**BUDGET, "period": {"rolling_days": 30}})
    assert again["period"] == {"rolling_days": 30}


async def test_an_adjustment_moves_the_limit_in_force(house: House) -> None:
    """It stays beside the limit that was set, and can not take it below zero."""
    await house.org()
    path = "/orgs/acme/budgets/cap"
    await house.ok("PUT", path, BUDGET)
    adjusted = await house.ok("POST", f"{path}/adjust", {"amount_usd": "-1.25", "reason": "refund"})
    assert (adjusted["limit_usd"], adjusted["effective_limit_usd"]) == ("5.000000000", "3.750000000")
    fields = await house.refused(400, "invalid_field", "POST", f"{path}/adjust", {"amount_usd": "-4", "reason": "x"})
    assert fields == ["amount_usd"]


async def test_prices_keep_their_history(house: House) -> None:
    """A class without a price costs what the class it is part of costs; each entry has its version."""
    await house.ok("PUT", "/prices/m", {"input_usd": "1", "output_usd": "4", "source_date": "2026-11-01"})
    later = await house.ok("PUT", "/prices/m", {"input_usd": "2", "output_usd": "4", "cached_input_usd": "0.5"})
    assert [(e["price"], e["cached_input_usd"]) for e in later["history"]] == [
        ("m@1", "1.000000000"),
        ("m@2", "0.500000000"),
    ]
    assert (later["input_usd"], later["reasoning_usd"]) == ("2.000000000", "4.000000000")
    assert [later[f"{name}_usd"] for name in ("audio_input", "image_input", "audio_output")] == [
        "2.000000000",
        "2.000000000",
        "4.000000000",
    ]
    spoken = await house.ok("PUT", "/prices/m", {"input_usd": "2", "output_usd": "4", "audio_output_usd": "8.5"})
    assert (spoken["price"], spoken["audio_output_usd"]) == ("m@3", "8.500000000")


async def test_a_backend_shows_how_it_is_used(house: House) -> None:
    """What was said, and the usual terms of what was not; the field at fault is named."""
    said = {
        "url": "http://h/v1",
        "protocol": "openai",
        "max_concurrent": 3,
        "health_path": "/models",
        "idle_seconds": None,
        "output_cap_field": "max_tokens",
    }
    made = await house.ok("PUT", "/backends/b", said)
    assert {name: made[name] for name in said} == said
    assert made["first_byte_seconds"] is None
    usual = await house.ok("PUT", "/backends/b", {"url": "http://h/v1", "protocol": "openai"})
    assert (usual["max_concurrent"], usual["idle_seconds"], usual["health_seconds"]) == (None, 300.0, 10.0)
    assert usual["output_cap_field"] is None
    assert await house.refused(400, "invalid_field", "PUT", "/backends/b", {**said, "output_cap_field": "cap"}) == [
        "output_cap_field"
    ]
    assert await house.refused(400, "invalid_field", "PUT", "/backends/b", {**said, "health_path": "x"}) == [
        "health_path"
    ]
    assert await house.refused(400, "invalid_field", "PUT", "/backends/b", {**said, "max_concurrent": 0}) == [
        "max_concurrent"
    ]


async def test_routes_need_backends_that_exist(house: House) -> None:
    """The route is named."""
    model = {"routes": [{"backend": "nope", "upstream_model": "m"}], "max_output_tokens": 100, "context_tokens": 1000}
    assert await house.refused(400, "invalid_field", "PUT", "/models/m", model) == ["routes.0.backend"]


async def test_lists_page_in_order_of_creation(house: House) -> None:
    """Every resource once, `next_cursor` null at the end, a made-up cursor refused."""
    await house.org()
    for number in range(5):
        await house.ok("POST", "/orgs/acme/projects", {"id": f"p{9 - number}", "name": "p"})
    await house.ok("DELETE", "/orgs/acme/projects/p7")
    seen: list[str] = []
    cursor = ""
    while True:
        page = await house.ok("GET", f"/orgs/acme/projects?limit=2{cursor}")
        seen += [item["id"] for item in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["main", "p9", "p8", "p6", "p5"]
    assert await house.refused(400, "invalid_field", "GET", "/orgs/acme/projects?cursor=zzz") == ["cursor"]
    assert await house.refused(400, "invalid_field", "GET", "/orgs/acme/projects?limit=0") == ["limit"]


async def test_an_unconfirmed_request_is_written_off(house: House) -> None:
    """Every unconfirmed attempt of the request; ordering it again changes nothing; others are refused."""
    await house.org()
    for attempt in ("req_1", "req_1.2"):
        fact = RequestAdmitted(
            request="req_1",
            attempt=attempt,
            org="acme",
            project="main",
            key="k",
            model="m",
            endpoint="chat",
            accounted_at=NOON,
            epoch=1,
            deadline=NOON,
        )
        envelope = Envelope(
            id="e", type="RequestAdmitted", org="acme", stream="acme/request/req_1", occurred_at=NOON, data=fact
        )
        house.books.waiting.append(Overdue(0, attempt, encode(envelope)))
    order = await house.ok("POST", "/orgs/acme/requests/req_1/write-off", {"reason": "backend gone"})
    assert order["attempts"] == ["req_1", "req_1.2"]
    before = house.events()
    await house.ok("POST", "/orgs/acme/requests/req_1/write-off", {"reason": "backend gone"})
    assert house.events() == before
    assert decode(house.journal.load("acme/write-off/req_1.2")[0]).type == "RequestWriteOffOrdered"
    body = {"reason": "x"}
    await house.refused(409, "not_unconfirmed", "POST", "/orgs/acme/requests/req_9/write-off", body)
    assert await house.refused(400, "invalid_field", "POST", "/orgs/acme/requests/req_1.2/write-off", {}) == ["reason"]
