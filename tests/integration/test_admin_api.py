"""Commands over HTTP: carried out once, in order, at the version that was seen, and told to the gateways."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.admin_house import House, admin_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with admin_house(tmp_path) as made:
        yield made


async def test_a_resource_lives_from_post_to_delete(house: House) -> None:
    """POST 201, GET, PATCH, suspend, DELETE 204, then 404; each answer has the next ETag and a later position."""
    made = await house.call("POST", "/orgs", {"id": "acme", "name": "Acme"})
    assert made.status_code == 201
    assert made.json() == {
        "id": "acme",
        "version": 1,
        "name": "Acme",
        "timezone": "UTC",
        "budget_status": 402,
        "limits": {"requests_per_minute": None, "tokens_per_minute": None, "concurrent": None, "models": {}},
        "status": "active",
        "fallbacks": {},
    }
    assert made.headers["etag"] == '"1"'
    changed = await house.call("PATCH", "/orgs/acme", {"name": "Acme Inc", "budget_status": 429})
    assert (changed.json()["version"], changed.headers["etag"]) == (3, '"3"')
    assert int(changed.headers["x-tollhouse-position"][1:]) > int(made.headers["x-tollhouse-position"][1:])
    assert (await house.ok("POST", "/orgs/acme/suspend", {"reason": "late"}))["status"] == "suspended"
    assert (await house.ok("POST", "/orgs/acme/reinstate"))["status"] == "active"
    assert (await house.ok("GET", "/orgs/acme"))["version"] == 5
    assert (await house.call("DELETE", "/orgs/acme")).status_code == 204
    await house.refused(404, "not_found", "GET", "/orgs/acme")
    await house.refused(409, "already_exists", "POST", "/orgs", {"id": "acme", "name": "again"})


async def test_what_was_answered_is_in_the_control_topic(house: House) -> None:
    """The answer waits for the relay, and the chain has every event once."""
    answer = await house.call("POST", "/orgs", {"id": "acme", "name": "Acme"})
    position = int(answer.headers["x-tollhouse-position"][1:])
    assert house.topic.records[-1][1].position == position
    assert [previous for previous, _ in house.topic.records] == [0, *(s.position for _, s in house.topic.records[:-1])]
    assert [s.body for _, s in house.topic.records] == [s.body for s in house.journal.after(0, 100)]


async def test_a_broken_log_is_said_and_the_repetition_answers(house: House) -> None:
    """503 while the event cannot be forwarded; the same command again gives its one answer once it can."""
    house.topic.broken = True
    body = {"id": "acme", "name": "Acme"}
    await house.refused(503, "log_unavailable", "POST", "/orgs", body, idempotency_key="k1")
    house.topic.broken = False
    assert (await house.call("POST", "/orgs", body, idempotency_key="k1")).status_code == 201
    assert len(house.journal.load("acme/org/acme")) == 1
    assert house.topic.records[-1][1].position == house.journal.append([], {}, None)


async def test_the_same_idempotency_key_answers_the_same_bytes(house: House) -> None:
    """Also quoted, also with the body written otherwise; another body is refused."""
    await house.org()
    body = {"name": "k", "project": "main"}
    first = await house.call("POST", "/orgs/acme/keys", body, idempotency_key="abc")
    before = house.events()
    swapped = dict(reversed(body.items()))
    again = await house.call("POST", "/orgs/acme/keys", swapped, idempotency_key='"abc"')
    assert (again.content, again.status_code) == (first.content, 201)
    assert again.headers["x-tollhouse-position"] == first.headers["x-tollhouse-position"]
    assert again.headers["etag"] == first.headers["etag"]
    assert first.json()["secret"].startswith("th_sk_")
    other = {"name": "other", "project": "main"}
    await house.refused(409, "idempotency_key_reused", "POST", "/orgs/acme/keys", other, idempotency_key="abc")
    assert house.events() == before


async def test_a_secret_is_repeated_for_a_day_only(house: House) -> None:
    """Later the repetition says that the secret is no longer kept."""
    await house.org()
    body = {"name": "k", "project": "main"}
    await house.ok("POST", "/orgs/acme/keys", body, idempotency_key="abc")
    house.clock.now += timedelta(hours=25)
    await house.refused(409, "secret_not_repeatable", "POST", "/orgs/acme/keys", body, idempotency_key="abc")


async def test_of_twenty_equal_commands_at_once_one_is_carried_out(house: House) -> None:
    """All twenty get the same answer."""
    await house.org()
    body = {"name": "k", "project": "main"}
    before = house.events()
    answers = await asyncio.gather(
        *(house.call("POST", "/orgs/acme/keys", body, idempotency_key="once") for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert house.events() == before + 1


async def test_twenty_adjustments_at_once_all_count(house: House) -> None:
    """Lost races are decided again, none is lost and none counts twice."""
    await house.org()
    await house.ok("PUT", "/orgs/acme/budgets/cap", {"scope": {"kind": "org"}, "limit_usd": "5", "period": "day"})
    body = {"amount_usd": "0.000000001", "reason": "drip"}
    answers = await asyncio.gather(*(house.call("POST", "/orgs/acme/budgets/cap/adjust", body) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await house.ok("GET", "/orgs/acme/budgets/cap"))["effective_limit_usd"] == "5.000000020"


async def test_if_match_refuses_what_changed_meanwhile(house: House) -> None:
    """412 with the code, and nothing changes."""
    await house.org()
    await house.ok("PATCH", "/orgs/acme", {"name": "A"}, if_match='"1"')
    await house.refused(412, "version_conflict", "PATCH", "/orgs/acme", {"name": "B"}, if_match='"1"')
    assert await house.refused(400, "invalid_field", "PATCH", "/orgs/acme", {"name": "B"}, if_match="x") == ["If-Match"]
    assert (await house.ok("GET", "/orgs/acme"))["name"] == "A"


async def test_a_dry_run_answers_the_events_and_changes_nothing(house: House) -> None:
    """The events that would be appended; refusals are as in earnest."""
    before = house.events()
    answer = await house.call("POST", "/orgs?dry_run=true", {"id": "acme", "name": "Acme"})
    assert [(e["type"], e["stream"], e["version"]) for e in answer.json()["events"]] == [
        ("OrganizationCreated", "acme/org/acme", 1)
    ]
    assert "x-tollhouse-position" not in answer.headers
    assert house.events() == before
    await house.refused(404, "not_found", "PATCH", "/orgs/acme?dry_run=true", {"name": "x"})


async def test_repeating_what_is_so_appends_nothing(house: House) -> None:
    """A PUT of the same terms keeps the version."""
    backend = {"url": "http://127.0.0.1:9/v1", "protocol": "openai", "credential": "sk-upstream", "timeout_seconds": 5}
    model = {"routes": [{"backend": "fake", "upstream_model": "m"}], "max_output_tokens": 100, "context_tokens": 1000}
    price = {"input_usd": "0.15", "output_usd": "0.60"}
    for path, body in (("/backends/fake", backend), ("/models/gpt-4.1", model), ("/prices/gpt-4.1", price)):
        assert (await house.call("PUT", path, body)).status_code == 201
        again = await house.call("PUT", path, body)
        assert (again.status_code, again.json()["version"]) == (200, 1)
