"""Calls that go past FastAPI are answered as FastAPI answers them."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.admin import app as module
from api.admin.express import Express
from tests.admin_house import BUDGET, House, admin_house

MODEL = {"routes": [{"backend": "b", "upstream_model": "m"}], "max_output_tokens": 100, "context_tokens": 1000}
Step = tuple[str, str, Any, dict[str, str]]

STEPS: list[Step] = [
    ("POST", "/orgs", {"id": "acme", "name": "Acme"}, {"idempotency_key": "one"}),
    ("POST", "/orgs", {"id": "acme", "name": "Acme"}, {"idempotency_key": "one"}),
    ("POST", "/orgs", {"id": "acme", "name": "other"}, {"idempotency_key": "one"}),
    ("POST", "/orgs", {"id": "acme", "name": "Acme"}, {}),
    ("POST", "/orgs", {"id": "acme", "name": "Acme", "more": 1}, {}),
    ("POST", "/orgs", {"id": "Not An Id", "name": "Acme"}, {}),
    ("POST", "/orgs", [], {}),
    ("POST", "/orgs", None, {}),
    ("POST", "/orgs/acme/projects", {"id": "main", "name": "main"}, {"idempotency_key": "not one\t"}),
    ("POST", "/orgs/acme/projects", {"id": "main", "name": "main"}, {}),
    ("PATCH", "/orgs/acme/projects/main", {"name": "new"}, {"if_match": '"1"'}),
    ("PATCH", "/orgs/acme/projects/main", {"name": "newer"}, {"if_match": '"1"'}),
    ("PATCH", "/orgs/acme/projects/main", {"name": "newer"}, {"if_match": "what?"}),
    ("GET", "/orgs/acme/projects", None, {}),
    ("GET", "/orgs/acme/projects/main", None, {}),
    ("GET", "/orgs/acme/projects/none", None, {}),
    ("PUT", "/orgs/acme/budgets/cap", BUDGET, {}),
    ("PUT", "/orgs/acme/budgets/cap", {**BUDGET, "limit_usd": 7}, {}),
    ("PUT", "/orgs/acme/budgets/cap", {**BUDGET, "limit_usd": 0.5}, {}),
    ("POST", "/orgs/acme/budgets/cap/adjust", {"amount_usd": "0.01"}, {}),
    ("POST", "/orgs/acme/budgets//adjust", {"amount_usd": "0.01"}, {}),
    ("POST", "/orgs/acme/budgets/cap/adjust/", {"amount_usd": "0.01"}, {}),
    ("POST", "/orgs/acme/budgets/cap/other", {"amount_usd": "0.01"}, {}),
    ("DELETE", "/orgs/acme/budgets/cap", None, {}),
    ("PUT", "/backends/b", {"url": "http://127.0.0.1:9/v1", "protocol": "openai", "credential": "c"}, {}),
    ("PUT", "/models/m", MODEL, {}),
    ("PUT", "/models/m", {**MODEL, "context_tokens": "1000"}, {}),
    ("PUT", "/prices/m", {"input_usd": "1", "output_usd": "2"}, {}),
    ("POST", "/backends/b/kill", {"reason": "why"}, {}),
    ("POST", "/backends/b/restore", None, {}),
    ("POST", "/backends/b/restore", {"reason": 5}, {}),
    ("POST", "/orgs/acme/keys", {"name": "k", "project": "main", "limits": {"concurrent": 2}}, {}),
    ("POST", "/orgs/acme/keys", {"name": "k", "project": "main", "expires_at": "2027-01-01T00:00:00Z"}, {}),
    ("POST", "/orgs/acme/keys", {"name": "k", "project": "none"}, {}),
    ("POST", "/orgs/acme/requests/req_1/write-off", {"reason": "why"}, {}),
    ("POST", "/orgs/acme/suspend", None, {}),
    ("DELETE", "/orgs", None, {}),
    ("GET", "/nothing", None, {}),
]


@pytest_asyncio.fixture
async def houses(tmp_path: Path) -> AsyncIterator[list[House]]:
    """Two that are alike."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(admin_house(tmp_path / name)) for name in "ab" if _made(tmp_path / name)]


def _made(folder: Path) -> bool:
    folder.mkdir()
    return True


async def test_both_ways_answer_the_same(houses: list[House]) -> None:
    """Good calls and bad ones: a query, even an empty choice, makes a call FastAPI's."""
    express, fastapi = houses
    for method, path, body, headers in STEPS:
        one = await express.call(method, path, body, **headers)
        other = await fastapi.call(method, f"{path}?dry_run=false", body, **headers)
        assert _shown(one) == _shown(other), (method, path, body)


def _shown(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """All of an answer but what is drawn by lot."""
    text = re.sub(r'(req|key|usr)_[0-9a-z]{26}|th_[as]k_\w+|"redacted":"[^"]*"', "-", answer.text)
    return answer.status_code, text, {**answer.headers, "x-request-id": "-", "content-length": "-", "location": "-"}


async def test_a_good_call_never_meets_fastapi(houses: list[House], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would notice that the way past it is closed."""
    house = houses[0]
    await house.org()
    monkeypatch.setattr(FastAPI, "__call__", lambda *_: pytest.fail("FastAPI was asked"))
    await house.ok("PUT", "/orgs/acme/budgets/cap", BUDGET, idempotency_key="k")
    await house.ok("POST", "/orgs/acme/budgets/cap/adjust", {"amount_usd": "0.01"}, if_match="*")
    await house.ok("POST", "/orgs/acme/suspend")
    await house.ok("GET", "/orgs")


def test_only_the_reconciliation_is_fastapis() -> None:
    """It is called once in a while. Every other endpoint of the command API can be called past it."""
    routes = [route for router in module._ROUTERS for route in router.router.routes if isinstance(route, APIRoute)]
    express = Express(FastAPI(), routes)
    missing = [route.path for route in routes if not express.knows(route)]
    assert missing == ["/admin/v1/reconcile"]


async def test_a_bug_is_told_as_fastapi_tells_it(houses: list[House], monkeypatch: pytest.MonkeyPatch) -> None:
    """500, and nothing of it."""

    async def broken(*args: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr("commands.handling.Commands.execute", broken)
    one, other = [
        await house.call("POST", f"/orgs{query}", {"id": "acme", "name": "Acme"})
        for house, query in zip(houses, ("", "?dry_run=false"), strict=True)
    ]
    assert _shown(one) == _shown(other)
    assert (one.status_code, one.json()["code"]) == (500, "internal_error")
    assert "secret" not in one.text
