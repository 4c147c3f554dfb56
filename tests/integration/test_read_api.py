"""The read API over real views: how new it is, what it explains, what is listed, and what operators can do."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from api.read.app import create_app
from domain.envelope import decode
from domain.facts import RequestFailed, RequestVoided
from domain.ids import partition_of
from infra.adapters.secrets import InstallationSecrets
from tests.bookkeeping import NOW, SECRET, Spent, make_books, make_folder
from tests.factgen import envelope
from tests.read_house import ReadHouse, catch_up, open_house
from tests.waiting import eventually


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadHouse]:
    folder = make_folder(tmp_path_factory.mktemp("reads") / "data")
    with open_house(folder, make_books(InstallationSecrets(SECRET))) as made:
        yield made


def one(house: ReadHouse, outcome: str, org: str = "acme") -> Spent:
    return next(spent for spent in house.books.of(org) if spent.outcome == outcome)


# -- how new it is


async def test_a_position_that_is_there_is_answered_at_once(house: ReadHouse) -> None:
    """Journal positions concern views of control events, the others views of facts."""
    for token in ("j1", f"j{house.books.control.position}", f"f{partition_of('acme')}.0"):
        for path in ("/read/v1/orgs/acme/budgets", "/read/v1/orgs/acme/usage", "/read/v1/orgs/acme/audit"):
            await house.get(path, x_tollhouse_position=token)


async def test_a_position_that_does_not_come_is_said(house: ReadHouse) -> None:
    """503 `view_behind` after the wait; nonsense is 400."""
    app = create_app(replace(house.deps, patience=0.05))
    impatient = replace(house, app=app)
    await impatient.refused(503, "view_behind", "/read/v1/orgs/acme/budgets", x_tollhouse_position="j999999999")
    far = f"f{partition_of('acme')}.99999999"
    await impatient.refused(503, "view_behind", "/read/v1/orgs/acme/usage", x_tollhouse_position=far)
    await impatient.refused(503, "view_behind", f"/v1/requests/{one(house, 'open').id}", x_tollhouse_position=far)
    doc = await impatient.refused(400, "invalid_field", "/read/v1/orgs/acme/usage", x_tollhouse_position="f99.1")
    assert doc["errors"][0]["field"] == "x-tollhouse-position"


async def test_a_read_waits_for_what_is_on_its_way(house: ReadHouse) -> None:
    """A fact appended while the read waits is in its answer; a request in the log is found without any position."""
    spent, partition = one(house, "open"), partition_of("acme")
    admitted = json.loads(next(body for _, body in house.books.facts if spent.id.encode() in body))["data"]
    names = (
        "request",
        "attempt",
        "org",
        "project",
        "user",
        "key",
        "model",
        "endpoint",
        "stream",
        "accounted_at",
        "hold",
    )
    identity = {name: admitted[name] for name in names if name in admitted}
    fact = msgspec.convert({**identity, "reason": "upstream_refused", "status": 400}, RequestFailed)
    offset = sum(1 for at, _ in house.books.facts if at == partition)
    asked = asyncio.create_task(
        house.get(f"/read/v1/requests/{spent.id}", x_tollhouse_position=f"f{partition}.{offset}")
    )
    assert await house.log.append(partition, envelope(fact, NOW, 10**6)) == offset
    answer = await asked
    assert (answer["outcome"], answer["code"], answer["position"]) == (
        "failed",
        "upstream_refused",
        f"f{partition}.{offset}",
    )
    assert answer["as_of"] == "2026-11-08T12:00:00Z"


async def test_an_answer_says_how_complete_it_is(house: ReadHouse) -> None:
    """While a view is behind, `as_of` is the time of the first event it lacks, and `lag_ms` how long ago that is."""
    catch_up(house.deps)
    usage = house.engines["usage"]
    with usage.standing_still():
        lost = RequestVoided(attempt="req_lost", org="acme")
        await house.log.append(partition_of("acme"), envelope(lost, NOW - timedelta(seconds=90), 10**6 + 1))
        doc = await house.get("/read/v1/orgs/acme/usage?bucket=all")
        assert (doc["as_of"], doc["lag_ms"]) == ("2026-11-08T11:58:30Z", 90_000)
        if partition_of("globex") != partition_of("acme"):
            assert (await house.get("/read/v1/orgs/globex/usage?bucket=all"))["lag_ms"] == 0
    catch_up(house.deps)
    assert (await house.get("/read/v1/orgs/acme/usage?bucket=all"))["lag_ms"] == 0


# -- what it explains


async def test_a_served_request_explains_itself(house: ReadHouse) -> None:
    """Who, which budgets at which balances, which price and backends, what it cost, and which facts say so."""
    spent = one(house, "completed")
    doc = await house.get(f"/read/v1/requests/{spent.id}")
    assert {name: doc[name] for name in ("id", "attempt", "org", "project", "user", "key", "model", "outcome")} == {
        "id": spent.id,
        "attempt": spent.id,
        "org": "acme",
        "project": spent.project,
        "user": spent.user,
        "key": spent.key,
        "model": spent.model,
        "outcome": "completed",
    }
    assert doc["price"] == "small@1"
    assert doc["cost_usd"] == f"{spent.cost // 10**9}.{spent.cost % 10**9:09d}"
    assert doc["tries"] == [{"backend": spent.backend, "status": 200, "error": None, "ms": 12.5}]
    cap = next(budget for budget in doc["budgets"] if budget["id"] == "cap")
    assert (cap["limit_usd"], cap["consumed_usd"], cap["held_usd"]) == ("9000.000000000", "0.123456789", "0.045000000")
    assert doc["admission"]["output_cap"] == 256
    assert {fact["type"] for fact in doc["facts"]} == {"RequestAdmitted", "RequestCompleted"}
    assert all(fact["id"].startswith("evt_") for fact in doc["facts"])
    assert doc["position"] == doc["facts"][-1]["position"]
    mine = await house.get(f"/v1/requests/{spent.id}", f"acme/{spent.project}")
    assert mine == doc


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("denied", "budget cap is exhausted"),
        ("failed", "upstream_refused"),
        ("unconfirmed", "deadline"),
        ("written_off", "agreed"),
    ],
)
async def test_what_did_not_go_well_says_why(house: ReadHouse, outcome: str, reason: str) -> None:
    """A refusal names the budget and what was left of it; an unconfirmed request counts its hold, as an estimate."""
    spent = next(s for s in house.books.of("acme") if s.outcome == outcome and (outcome != "failed" or s.backend))
    doc = await house.get(f"/read/v1/requests/{spent.id}")
    assert (doc["outcome"], doc["reason"]) == (outcome, reason)
    if outcome == "denied":
        assert (doc["status"], doc["code"], doc["refused_by"]) == (402, "insufficient_quota", "cap")
        assert [budget["id"] for budget in doc["budgets"] if budget["refused"]] == ["cap"]
        assert doc["count"] == spent.count
    else:
        assert doc["price"] == "small@1"
        assert doc["cost_usd"] == (doc["hold_usd"] if outcome == "unconfirmed" else "0.000000000")
        assert doc["estimated"] is (outcome == "unconfirmed")


async def test_a_folded_refusal_is_found_by_any_of_its_ids(house: ReadHouse) -> None:
    """The last id of several equal refusals that share a fact answers as the first does."""
    spent = next(s for s in house.books.of("acme") if s.outcome == "denied" and s.count > 1)
    fact = json.loads(next(body for _, body in house.books.facts if spent.id.encode() in body))["data"]
    doc = await house.get(f"/read/v1/requests/{fact['last']}")
    assert (doc["id"], doc["folded"], doc["attempts"][0]["id"]) == (fact["last"], True, spent.id)


async def test_an_unknown_request_is_not_there(house: ReadHouse) -> None:
    """404 once the view has all of the log."""
    await house.refused(404, "not_found", "/read/v1/requests/req_00000000000000000000000000")
    await house.refused(404, "not_found", "/v1/requests/req_00000000000000000000000000", "acme/web")


# -- audit and events


async def test_the_audit_tells_who_did_what_without_secrets(house: ReadHouse) -> None:
    """Newest first, before and after, in pages; no hash of a key is in it; the chain holds."""
    entries: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await house.get(f"/read/v1/orgs/acme/audit?limit=3{cursor and f'&cursor={cursor}'}", "acme/org-viewer")
        entries += page["data"]
        cursor = page["next_cursor"]
    records = [decode(record.value) for record in house.books.control.log.records[0]]
    assert [entry["id"] for entry in reversed(entries)][:5] == [e.id for e in records if e.org == "acme"][:5]
    created = entries[-1]
    assert (created["type"], created["before"], created["actor"]) == ("OrganizationCreated", None, "key_admin")
    assert created["after"]["name"] == "Acme"
    assert house.deps.secrets.hash(house.books.keys["acme/web"]) not in json.dumps(entries)
    check = await house.get("/read/v1/audit/verify")
    assert (check["valid"], check["broken_at"]) == (True, None)
    assert check["entries"] >= len(records)


async def test_events_are_all_there_once(house: ReadHouse) -> None:
    """Control events and facts of one organization, in pages; of all, for a platform admin; one by its id."""
    for org, path in (("acme", "/read/v1/orgs/acme/events"), (None, "/admin/v1/events")):
        seen: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await house.get(f"{path}?limit=150{cursor and f'&cursor={cursor}'}")
            seen += page["data"]
            cursor = page["next_cursor"]
        bodies = [r.value for r in house.books.control.log.records[0]] + [body for _, body in house.books.facts]
        wanted = {event.id for event in map(decode, bodies) if org in (None, event.org)}
        ids = [event["id"] for event in seen]
        assert len(set(ids)) == len(ids)
        assert wanted <= set(ids)
        assert all(house.deps.secrets.hash(key) not in json.dumps(seen) for key in house.books.keys.values())
        again = await house.get(f"{path}?after={seen[-2]['cursor']}")
        assert [event["id"] for event in again["data"]] == ids[-1:]
    for event in (seen[0], seen[-1]):
        assert (await house.get(f"/admin/v1/events/{event['id']}"))["type"] == event["type"]
    await house.refused(404, "not_found", "/admin/v1/events/evt_none")


async def test_events_can_be_followed(house: ReadHouse) -> None:
    """Server-sent events go on after Last-Event-ID; a stream ends when the process is about to."""
    listed = (await house.get("/read/v1/orgs/acme/events?limit=20"))["data"]
    asked = iter([False, False, True])
    app = create_app(replace(house.deps, ending=lambda: next(asked, True)))
    head = {"accept": "text/event-stream", "last_event_id": listed[4]["cursor"]}
    answer = await replace(house, app=app).call("GET", "/read/v1/orgs/acme/events", **head)
    assert answer.headers["content-type"].startswith("text/event-stream")
    followed = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
    assert followed[:15] == listed[5:]
    assert [line[4:] for line in answer.text.splitlines() if line.startswith("id: ")] == [e["cursor"] for e in followed]


# -- operators


async def finished(house: ReadHouse, path: str) -> Any:
    started = await house.call("POST", path)
    assert started.status_code == 202, started.text
    operation = await eventually(
        lambda: house.get(f"/admin/v1/operations/{started.json()['operation']}"), lambda doc: doc["status"] != "running"
    )
    assert operation["status"] == "done", operation
    return operation["result"]


async def test_projections_are_rebuilt_and_verified(house: ReadHouse) -> None:
    """Equal hashes, a new version, and the same figures before and after."""
    before = await house.get("/read/v1/orgs/acme/usage?bucket=day&group_by=model")
    projections = {row["name"]: row for row in (await house.get("/admin/v1/projections"))["data"]}
    assert set(projections) == {"directory", "balances", "usage", "audit"}
    assert all((row["lag"], row["parked"], row["status"]) == (0, 0, "running") for row in projections.values())
    for name, row in projections.items():
        result = await finished(house, f"/admin/v1/projections/{name}/rebuild")
        assert (result["name"], result["equal"], result["events"]) == (name, True, row["events"])
        assert result["live_hash"] == result["rebuilt_hash"]
    result = await finished(house, "/admin/v1/projections/all/verify")
    assert result["equal"] is True
    assert [row["name"] for row in result["data"]] == list(projections)
    after = (await house.get("/admin/v1/projections"))["data"]
    assert all(row["version"] > projections[row["name"]]["version"] for row in after)
    assert (await house.get("/read/v1/orgs/acme/usage?bucket=day&group_by=model"))["data"] == before["data"]
    answer = await house.call("POST", "/admin/v1/projections/nothing/rebuild")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    await house.refused(404, "not_found", "/admin/v1/operations/op_none")


async def test_a_parked_event_is_shown_held_up_and_dropped(house: ReadHouse) -> None:
    """What cannot be taken in is listed with its reason, makes answers admit that they are not complete, and goes when told."""
    partition = partition_of("globex")
    at = (NOW - timedelta(seconds=30)).isoformat()
    poison = {"id": "evt_bad", "type": "RequestTeleported", "org": "globex", "stream": "globex/request/x", "data": {}}
    await house.log.append(partition, json.dumps({**poison, "occurred_at": at}).encode())
    catch_up(house.deps)
    parked = (await house.get("/admin/v1/parked"))["data"]
    assert {(row["projection"], row["type"], row["org"]) for row in parked} == {
        ("balances", "RequestTeleported", "globex"),
        ("usage", "RequestTeleported", "globex"),
    }
    assert all("RequestTeleported" in row["error"] for row in parked)
    assert (await house.get("/read/v1/orgs/globex/budgets/cap"))["lag_ms"] == 30_000
    assert (await house.get("/read/v1/orgs/acme/budgets/cap"))["lag_ms"] == 0
    for row in parked:
        shown = await house.get(f"/admin/v1/parked/{row['id']}")
        assert json.loads(shown["body"])["id"] == "evt_bad"
        retried = await house.call("POST", f"/admin/v1/parked/{row['id']}/retry")
        assert (retried.status_code, retried.json()["code"]) == (409, "still_poisoned")
        dry = await house.call("POST", f"/admin/v1/parked/{row['id']}/drop?dry_run=true")
        assert dry.json()["id"] == row["id"]
        assert (await house.call("POST", f"/admin/v1/parked/{row['id']}/drop")).json()["dropped"] is True
        await house.refused(404, "not_found", f"/admin/v1/parked/{row['id']}")
    assert (await house.get("/admin/v1/parked"))["data"] == []
    assert (await house.get("/read/v1/orgs/globex/budgets/cap"))["lag_ms"] == 0


async def test_both_apis_describe_themselves(house: ReadHouse) -> None:
    """The description needs no key and has every path and parameter."""
    doc = (await house.call("GET", "/read/v1/openapi.json", None)).json()
    assert len(doc["paths"]) > 20
    usage = doc["paths"]["/read/v1/orgs/{org}/usage"]["get"]["parameters"]
    assert {"from", "to", "bucket", "group_by", "timezone", "format"} <= {parameter["name"] for parameter in usage}
