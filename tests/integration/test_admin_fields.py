"""What the command API refuses before it decides anything: the answer names the field."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin_house import BUDGET, House, admin_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with admin_house(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "k", "project": "nope"}, "project"),
        ({"name": "k", "project": "main", "user": "usr_x"}, "user"),
        ({"name": "k", "project": "main", "models": []}, "models"),
        ({"name": "k", "project": "main", "limits": {"concurrent": 0}}, "limits.concurrent"),
        ({"name": "k", "project": "main", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "k", "project": "main", "colour": "red"}, "colour"),
        ({"name": "k"}, "project"),
        ({"name": 5, "project": "main"}, "name"),
        ([1], "body"),
    ],
)
async def test_a_bad_key_request_names_the_field(house: House, body: Any, field: str) -> None:
    """400 `invalid_field`, and nothing is issued."""
    await house.org()
    before = house.events()
    assert await house.refused(400, "invalid_field", "POST", "/orgs/acme/keys", body) == [field]
    assert house.events() == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"limit_usd": "-1"}, "limit_usd"),
        ({"limit_usd": -1}, "limit_usd"),
        ({"limit_usd": "NaN"}, "limit_usd"),
        ({"limit_usd": "1e30"}, "limit_usd"),
        ({"limit_usd": 1e30}, "limit_usd"),
        ({"limit_usd": 10**30}, "limit_usd"),
        ({"limit_usd": 0.5}, "limit_usd"),
        ({"limit_usd": True}, "limit_usd"),
        ({"limit_usd": "0.0000000001"}, "limit_usd"),
        ({"limit_usd": "9000000.000000001"}, "limit_usd"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"period": "fortnight"}, "period"),
        ({"period": {"every": "5 parsecs"}}, "period.every"),
        ({"period": {"rolling_days": 0}}, "period.rolling_days"),
        ({"week_start": 7}, "week_start"),
        ({"anchor": "yesterday"}, "anchor"),
        ({"mode": "firm"}, "mode"),
        ({"models": ["Not A Model"]}, "models"),
        ({"thresholds": [0]}, "thresholds"),
        ({"scope": {"kind": "galaxy"}}, "scope.kind"),
        ({"scope": {"kind": "org", "id": "acme"}}, "scope.id"),
        ({"scope": {"kind": "project", "id": "nope"}}, "scope.id"),
        ({"scope": {"kind": "key"}}, "scope.id"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_bad_budget_names_the_field(house: House, change: dict[str, Any], field: str) -> None:
    """400 `invalid_field`, and nothing is set."""
    await house.org()
    before = house.events()
    path = "/orgs/acme/budgets/cap"
    assert await house.refused(400, "invalid_field", "PUT", path, {**BUDGET, **change}) == [field]
    assert house.events() == before


@pytest.mark.parametrize("number", ["NaN", "1e30", "Infinity", "0.0000000001"])
async def test_numbers_that_are_not_exact_are_refused_in_json_too(house: House, number: str) -> None:
    """A bare number is refused naming the field, whatever it is."""
    await house.org()
    text = json.dumps(BUDGET).replace('"5"', number)
    answer = await house.client.put(
        "/admin/v1/orgs/acme/budgets/cap", content=text, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["limit_usd"]


@pytest.mark.parametrize("text", ['{"id": "acme", ', "", "[" * 100_000, '{"id": ' + "9" * 10_000 + "}", '"\\ud800"'])
async def test_malformed_json_is_refused(house: House, text: str) -> None:
    """400 with a field, never a 500."""
    answer = await house.client.post("/admin/v1/orgs", content=text, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "k", "project": "\ud800"}, "project"),
        ({"name": "k", "models": ["m", "\udfff\ud800"]}, "models.1"),
        ({"name": "k", "limits": {"\ud800": 1}}, "limits"),
    ],
)
async def test_what_is_no_text_is_refused_by_its_field(house: House, body: Any, field: str) -> None:
    """Half of a surrogate pair, in a value or a name, wherever it is: 400 naming where."""
    await house.org()
    json_type = {"content-type": "application/json"}
    answer = await house.client.post("/admin/v1/orgs/acme/keys", content=json.dumps(body), headers=json_type)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("name", [b"\xed\xa0\x80", b"\xff\xfe", b"\xc0\x80"])
async def test_a_body_that_is_not_utf8_is_refused(house: House, name: bytes) -> None:
    """400, and where it is not. (Python's own reader of JSON would take the first.)"""
    content = b'{"id": "' + name + b'", "name": "x"}'
    answer = await house.client.post("/admin/v1/orgs", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    assert "byte 8" in answer.json()["errors"][0]["message"]


async def test_a_body_over_the_limit_is_refused(house: House) -> None:
    """413 before anything is parsed, with a declared length and without."""
    large = b'{"id": "' + b"a" * (2 * 1024 * 1024) + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        yield large

    for content in (large, chunks()):
        answer = await house.client.post("/admin/v1/orgs", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


async def test_unknown_paths_and_methods_are_problems_too(house: House) -> None:
    """404 and 405 with a code."""
    await house.refused(404, "not_found", "GET", "/nothing")
    await house.refused(405, "method_not_allowed", "DELETE", "/orgs")


async def test_the_api_describes_itself(house: House) -> None:
    """The OpenAPI document needs no key and names every resource."""
    answer = await house.client.get("/admin/v1/openapi.json", headers={"authorization": ""})
    paths = answer.json()["paths"]
    assert "/admin/v1/orgs/{org}/budgets/{budget}/adjust" in paths
    assert "/admin/v1/orgs/{org}/requests/{request}/write-off" in paths
