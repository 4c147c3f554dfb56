"""The command API over a real SQLite journal and a real relay; only the control topic is a list."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.admin.app import create_app
from api.admin.call import AdminDeps
from commands.handling import Changes, Commands, Reply, Request
from commands.keys import issue_admin_key
from commands.ports import Overdue, Overrun, PartitionBalances, Stored
from commands.relay import Relay
from domain.envelope import Envelope, decode, encode
from domain.errors import LogUnavailable
from domain.facts import RequestAdmitted
from infra.adapters.keyring_directory import KeyringDirectory
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_journal import SQLiteJournal
from projections.keyring import Keyring
from projections.ports import Record

SECRET = b"s" * 32
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass
class Topic:
    """The control topic in memory, read by a keyring as soon as it is written; `broken` refuses everything."""

    keyring: Keyring
    records: list[tuple[int, Stored]] = field(default_factory=list)
    broken: bool = False

    async def tail(self) -> int:
        if self.broken:
            raise LogUnavailable("down")
        return self.records[-1][1].position if self.records else 0

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        if self.broken:
            raise LogUnavailable("down")
        for event in events:
            record = Record(0, len(self.records), event.body, event.position, previous)
            self.records.append((previous, event))
            self.keyring.apply([record])
            previous = event.position


@dataclass
class Books:
    """Balances that know some unconfirmed admissions."""

    waiting: list[Overdue] = field(default_factory=list)

    def watermarks(self) -> Mapping[int, int]:
        return {}

    def partition(self, partition: int) -> PartitionBalances:
        return PartitionBalances(0)

    def overdue(self, now: datetime) -> Sequence[Overdue]:
        return []

    def unconfirmed(self, org: str | None = None) -> Sequence[Overdue]:
        return self.waiting

    def awaiting(self, attempts: Sequence[str]) -> Sequence[Overdue]:
        return [waiting for waiting in self.waiting if waiting.attempt in attempts]

    def overruns(self) -> Sequence[Overrun]:
        return []


@dataclass
class Clock:
    """The time that the tests set."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass
class House:
    """A command API with everything behind it, and a client that holds the platform admin's key."""

    journal: SQLiteJournal
    topic: Topic
    books: Books
    commands: Commands
    client: httpx.AsyncClient
    clock: Clock

    async def call(
        self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named["authorization"] = f"Bearer {key}"
        return await self.client.request(method, f"/admin/v1{path}", json=body, headers=named)

    async def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = await self.call(method, path, body, **headers)
        assert answer.status_code in (200, 201, 204), answer.text
        return answer.json() if answer.content else None

    async def refused(
        self, status: int, code: str, method: str, path: str, body: Any = None, **headers: str
    ) -> list[str]:
        """The fields that the problem names."""
        answer = await self.call(method, path, body, **headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        return [error["field"] for error in answer.json().get("errors", [])]

    async def org(self, org: str = "acme", project: str = "main") -> None:
        await self.ok("POST", "/orgs", {"id": org, "name": org.title(), "timezone": "Europe/Vienna"})
        await self.ok("POST", f"/orgs/{org}/projects", {"id": project, "name": project})

    async def admin(self, role: str, org: str | None) -> str:
        body = {"name": role, "role": role, **({"org": org} if org else {})}
        secret: str = (await self.ok("POST", "/admin-keys", body))["secret"]
        return secret

    def events(self) -> int:
        return len(self.journal.after(0, 10_000))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = Clock()
    journal = SQLiteJournal(tmp_path / "journal.db", SECRET, clock, "normal")
    secrets, keyring, books = InstallationSecrets(SECRET), Keyring(), Books()
    topic = Topic(keyring)
    relay = Relay(journal, topic, poll=0.01, patience=0.3)
    commands = Commands(journal, clock, secrets, relay.wait_for)
    app = create_app(
        AdminDeps(
            commands, KeyringDirectory(keyring), secrets, lambda: books, lambda: pytest.fail("not asked for"), clock
        )
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    issued: list[str] = []

    def bootstrap(changes: Changes) -> Reply:
        issued.append(issue_admin_key(changes, name="root", role="platform-admin").secret)
        return Reply(b"")

    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        made = House(journal, topic, books, commands, client, clock)
        running = asyncio.create_task(relay.run())
        await commands.execute(Request(actor="system"), bootstrap)
        client.headers["authorization"] = f"Bearer {issued[0]}"
        yield made
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    journal.close()


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
        "status": "active",
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


BUDGET = {"scope": {"kind": "org"}, "limit_usd": "5", "period": "month", "mode": "hard"}


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


async def test_a_body_over_the_limit_is_refused(house: House) -> None:
    """413 before anything is parsed, with a declared length and without."""
    large = b'{"id": "' + b"a" * (2 * 1024 * 1024) + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        yield large

    for content in (large, chunks()):
        answer = await house.client.post("/admin/v1/orgs", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


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


async def test_keys_that_are_not_ours_are_refused(house: House) -> None:
    """401, indistinguishable: none, another scheme, one character changed, a service key, a revoked key."""
    await house.org()
    right = house.client.headers["authorization"].removeprefix("Bearer ")
    typo = right[:-1] + ("a" if right[-1] != "a" else "b")
    service = (await house.ok("POST", "/orgs/acme/keys", {"name": "k", "project": "main"}))["secret"]
    revoked = await house.ok("POST", "/admin-keys", {"name": "x", "role": "platform-admin"})
    await house.ok("POST", f"/admin-keys/{revoked['id']}/revoke")
    for key in ("", "not-a-key", typo, service, revoked["secret"]):
        answer = await house.call("GET", "/orgs", key=key)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert not key or key not in answer.text


async def test_an_admin_key_cannot_revoke_itself(house: House) -> None:
    """Somebody must be left to ask."""
    own = (await house.ok("GET", "/admin-keys"))["data"][0]
    await house.refused(409, "own_key", "POST", f"/admin-keys/{own['id']}/revoke")


@pytest.mark.parametrize(
    ("method", "path", "body", "statuses"),
    [
        # platform-admin, org-admin, org-billing, org-viewer of the same organization, org-admin of another
        ("GET", "/orgs/acme", None, (200, 200, 200, 200, 404)),
        ("PATCH", "/orgs/acme", {"name": "x"}, (200, 200, 403, 403, 404)),
        ("POST", "/orgs/acme/suspend", None, (200, 403, 403, 403, 404)),
        ("DELETE", "/orgs/acme", None, (204, 403, 403, 403, 404)),
        ("POST", "/orgs", {"id": "new", "name": "New"}, (201, 403, 403, 403, 403)),
        ("GET", "/orgs/acme/projects", None, (200, 200, 200, 200, 404)),
        ("POST", "/orgs/acme/projects", {"id": "p", "name": "p"}, (201, 201, 403, 403, 404)),
        ("GET", "/orgs/acme/users", None, (200, 200, 200, 200, 404)),
        ("POST", "/orgs/acme/users", {"email": "a@b.c"}, (201, 201, 403, 403, 404)),
        ("GET", "/orgs/acme/keys", None, (200, 200, 200, 200, 404)),
        ("POST", "/orgs/acme/keys", {"name": "k", "project": "main"}, (201, 201, 403, 403, 404)),
        ("GET", "/orgs/acme/budgets", None, (200, 200, 200, 200, 404)),
        ("PUT", "/orgs/acme/budgets/b", BUDGET, (201, 201, 201, 403, 404)),
        ("POST", "/orgs/acme/requests/r/write-off", {"reason": "x"}, (409, 409, 409, 403, 404)),
        ("GET", "/backends", None, (200, 404, 404, 404, 404)),
        ("PUT", "/backends/b", {"url": "http://h/v1", "protocol": "openai"}, (201, 404, 404, 404, 404)),
        ("GET", "/models", None, (200, 404, 404, 404, 404)),
        ("PUT", "/prices/m", {"input_usd": "1", "output_usd": "1"}, (201, 404, 404, 404, 404)),
        ("GET", "/admin-keys", None, (200, 404, 404, 404, 404)),
        ("GET", "/orgs/nope/projects", None, (404, 404, 404, 404, 404)),
    ],
)
async def test_roles(house: House, method: str, path: str, body: Any, statuses: tuple[int, ...]) -> None:
    """Another's organization and the platform are not there (404); what the role lacks in its own is forbidden (403)."""
    await house.org("acme")
    await house.org("umbrella")
    keys = [
        house.client.headers["authorization"].removeprefix("Bearer "),
        await house.admin("org-admin", "acme"),
        await house.admin("org-billing", "acme"),
        await house.admin("org-viewer", "acme"),
        await house.admin("org-admin", "umbrella"),
    ]
    dry = path if method == "GET" else f"{path}?dry_run=true"
    seen = [(await house.call(method, dry, body, key=key)).status_code for key in keys]
    wanted = [200 if method != "GET" and status < 300 else status for status in statuses]
    assert seen == wanted


async def test_an_org_admin_lists_its_own_organization_only(house: House) -> None:
    """The list is the same resource for everybody, with what they may see."""
    await house.org("acme")
    await house.org("umbrella")
    key = await house.admin("org-viewer", "acme")
    assert [org["id"] for org in (await house.call("GET", "/orgs", key=key)).json()["data"]] == ["acme"]
    assert [org["id"] for org in (await house.ok("GET", "/orgs"))["data"]] == ["acme", "umbrella"]


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


async def test_users_are_invited_join_and_leave(house: House) -> None:
    """Their status follows, and who was removed is gone."""
    await house.org()
    user = await house.ok("POST", "/orgs/acme/users", {"email": "ann@example.com", "role": "org-viewer"})
    assert user["id"].startswith("usr_")
    assert user["status"] == "invited"
    path = f"/orgs/acme/users/{user['id']}"
    assert (await house.ok("POST", f"{path}/accept"))["status"] == "active"
    assert (await house.ok("PATCH", path, {"role": "member"}))["role"] == "member"
    assert (await house.ok("POST", f"{path}/suspend"))["status"] == "suspended"
    assert (await house.ok("POST", f"{path}/reinstate"))["status"] == "active"
    await house.ok("DELETE", path)
    await house.refused(404, "not_found", "GET", path)
    assert (await house.ok("GET", "/orgs/acme/users"))["data"] == []


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
