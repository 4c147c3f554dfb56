"""The read API over real views: who may see what, and what is said about bad input."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from domain.envelope import decode
from domain.organization import OrganizationSuspended
from domain.service_key import ApiKeyRevoked
from infra.adapters.secrets import InstallationSecrets
from tests.bookkeeping import SECRET, Spent, make_books, make_folder
from tests.read_house import ReadHouse, open_house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadHouse]:
    folder = make_folder(tmp_path_factory.mktemp("reads") / "data")
    with open_house(folder, make_books(InstallationSecrets(SECRET))) as made:
        yield made


def one(house: ReadHouse, outcome: str, org: str = "acme") -> Spent:
    return next(spent for spent in house.books.of(org) if spent.outcome == outcome)


# -- who may see what

PLATFORM_ONLY = (
    "/read/v1/audit/verify",
    "/admin/v1/projections",
    "/admin/v1/projections/{name}/rebuild",
    "/admin/v1/projections/{name}/verify",
    "/admin/v1/operations/{id}",
    "/admin/v1/parked",
    "/admin/v1/parked/{id}",
    "/admin/v1/parked/{id}/retry",
    "/admin/v1/parked/{id}/drop",
    "/admin/v1/events",
    "/admin/v1/events/{event}",
)
OF_AN_ORG = (
    "/read/v1/orgs/{org}/budgets",
    "/read/v1/orgs/{org}/budgets/{budget}",
    "/read/v1/orgs/{org}/usage",
    "/read/v1/orgs/{org}/requests",
    "/read/v1/orgs/{org}/audit",
    "/read/v1/orgs/{org}/events",
    "/v1/organization/usage/completions",
    "/v1/organization/usage/embeddings",
    "/v1/organization/costs",
)
OF_A_REQUEST = ("/read/v1/requests/{id}", "/v1/requests/{id}")


def path_of(house: ReadHouse, route: str) -> str:
    request = one(house, "completed").id
    event = decode(house.books.facts[5][1]).id
    path = route.format(org="acme", budget="cap", name="usage", id=request, event=event)
    return f"{path}?start_time=1790000000" if path.startswith("/v1/organization") else path


def routes(house: ReadHouse) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for router in (route for route in walked(house.app.routes) if isinstance(route, APIRoute)):
        found.setdefault(router.path, set()).update(router.methods or ())
    return found


def walked(found: Any) -> Iterator[Any]:
    for route in found:
        yield route
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from walked(inner.routes)


@pytest.mark.parametrize("key", ["globex/org-admin", "globex/org-billing", "globex/org-viewer", "globex/web"])
async def test_nothing_of_another_organization_is_there(house: ReadHouse, key: str) -> None:
    """Every route there is, asked for what is another's or the platform's: 404, as if it did not exist."""
    known = {*PLATFORM_ONLY, *OF_AN_ORG, *OF_A_REQUEST}
    assert set(routes(house)) == known
    for route, methods in routes(house).items():
        for method in methods:
            answer = await house.call(method, path_of(house, route), key, openai_organization="acme")
            assert answer.status_code == 404, f"{method} {route}: {answer.status_code} {answer.text}"
            assert "acme" not in answer.text


@pytest.mark.parametrize("key", ["acme/org-admin", "acme/org-billing", "acme/org-viewer"])
async def test_every_role_reads_its_own_organization(house: ReadHouse, key: str) -> None:
    """All roles may read; none but the platform's sees the operators' endpoints."""
    for route in (*OF_AN_ORG, *OF_A_REQUEST):
        answer = await house.call("GET", path_of(house, route), key)
        assert answer.status_code == 200, f"{route}: {answer.text}"
    for route in PLATFORM_ONLY:
        assert (await house.call("GET", path_of(house, route), key)).status_code in (404, 405)


async def test_a_service_key_sees_its_own_project(house: ReadHouse) -> None:
    """Figures and requests of its project only; the organization's audit and budgets are not its business."""
    mine = [s for s in house.books.of("acme") if s.project == "web"]
    rows = (await house.get("/read/v1/orgs/acme/usage?bucket=all", "acme/web"))["data"]
    whole = (await house.get("/read/v1/orgs/acme/usage?bucket=all&project=web"))["data"]
    assert rows == whole
    listed = await house.call("GET", "/read/v1/orgs/acme/requests?format=ndjson", "acme/web")
    assert {json.loads(line)["attempt"] for line in listed.text.splitlines()} == {s.id for s in mine}
    costs = await house.get("/v1/organization/costs?start_time=1790000000&limit=180&group_by=project_id", "acme/web")
    assert {r["project_id"] for bucket in costs["data"] for r in bucket["results"]} == {"web"}
    other = next(s for s in house.books.of("acme") if s.project == "batch" and s.outcome == "completed")
    await house.refused(404, "not_found", f"/v1/requests/{other.id}", "acme/web")
    await house.refused(404, "not_found", "/read/v1/orgs/acme/usage?project=batch", "acme/web")
    await house.refused(403, "forbidden", "/read/v1/orgs/acme/audit", "acme/web")
    await house.refused(403, "forbidden", "/read/v1/orgs/acme/events", "acme/web")
    assert [b["id"] for b in (await house.get("/read/v1/orgs/acme/budgets", "acme/web"))["data"]] == ["daily"]
    await house.refused(404, "not_found", "/read/v1/orgs/acme/budgets/cap", "acme/web")


async def test_without_a_good_key_nothing_is_answered(house: ReadHouse) -> None:
    """401, in the shape of the path; one wrong character is enough."""
    house.books.keys["typo"] = house.books.keys["root"][:-1] + "!"
    for key in (None, "typo"):
        for route in (*OF_AN_ORG, *OF_A_REQUEST, *PLATFORM_ONLY):
            answer = await house.call("GET", path_of(house, route), key)
            assert answer.status_code == 401
            assert answer.headers["x-request-id"].startswith("req_")
            body = answer.json()
            shape = body["error"] if route.startswith("/v1/") else body
            assert shape["code"] == "invalid_api_key"


async def test_a_platform_admin_names_the_organization(house: ReadHouse) -> None:
    """Without the header: 400 with the code; an unknown one: 404."""
    path = "/v1/organization/costs?start_time=1790000000"
    doc = await house.refused(400, "missing_organization", path)
    assert doc["error"]["param"] == "OpenAI-Organization"
    await house.refused(404, "not_found", path, openai_organization="nobody")
    await house.refused(404, "not_found", "/read/v1/orgs/nobody/usage")


# -- bad input


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/read/v1/orgs/acme/usage?bucket=fortnight", "bucket"),
        ("/read/v1/orgs/acme/usage?groupby=model", "groupby"),
        ("/read/v1/orgs/acme/usage?group_by=colour", "group_by"),
        ("/read/v1/orgs/acme/usage?timezone=Mars/Olympus", "timezone"),
        ("/read/v1/orgs/acme/usage?from=yesterday", "from"),
        ("/read/v1/orgs/acme/usage?to=99999-01-01", "to"),
        ("/read/v1/orgs/acme/requests?limit=0", "limit"),
        ("/read/v1/orgs/acme/requests?limit=1001", "limit"),
        ("/read/v1/orgs/acme/requests?cursor=nonsense", "cursor"),
        ("/read/v1/orgs/acme/requests?format=xlsx", "format"),
        ("/read/v1/orgs/acme/audit?cursor=eHg", "cursor"),
        ("/read/v1/orgs/acme/events?after=f3", "after"),
        ("/read/v1/orgs/acme/budgets/cap?as_of=2100-01-01", "as_of"),
    ],
)
async def test_a_bad_parameter_is_named(house: ReadHouse, path: str, field: str) -> None:
    """400 `invalid_field`, with the name of the parameter."""
    doc = await house.refused(400, "invalid_field", path)
    assert [error["field"] for error in doc["errors"]] == [field]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "start_time"),
        ("start_time=abc", "start_time"),
        ("start_time=1790000000&end_time=1790000000", "end_time"),
        ("start_time=1790000000&limit=32", "limit"),
        ("start_time=1790000000&bucket_width=1h&limit=169", "limit"),
        ("start_time=1790000000&bucket_width=1m&limit=1441", "limit"),
        ("start_time=1790000000&limit=0", "limit"),
        ("start_time=1790000000&bucket_width=1w", "bucket_width"),
        ("start_time=1790000000&group_by=colour", "group_by"),
        ("start_time=1790000000&page=page_x", "page"),
        ("start_time=1790000000&colour=red", "colour"),
    ],
)
async def test_openais_shape_names_the_parameter(house: ReadHouse, query: str, param: str) -> None:
    """An OpenAI error object with `param`."""
    doc = await house.refused(400, "invalid_field", f"/v1/organization/usage/completions?{query}", "acme/org-admin")
    assert set(doc["error"]) == {"message", "type", "param", "code"}
    assert doc["error"]["param"] == param


async def test_unknown_paths_are_said_in_the_shape_of_the_path(house: ReadHouse) -> None:
    """404 with a code, as problem or as OpenAI error object."""
    await house.refused(404, "unknown_url", "/read/v1/nothing")
    await house.refused(404, "unknown_url", "/v1/organization/nothing")


# -- keys that end


async def test_a_revoked_key_and_a_suspended_organization_read_nothing(house: ReadHouse) -> None:
    """From the moment the event is in the log: 401 for the key, 403 for the other service keys; admins still read."""
    control = house.books.control
    first = len(control.log.records[0])
    assert (await house.call("GET", "/read/v1/orgs/globex/usage", "globex/web")).status_code == 200
    control.emit("globex/key/key_globex_web", ApiKeyRevoked(reason=None))
    control.emit("globex/org/globex", OrganizationSuspended(reason="late"))
    await house.log.forward(control.log.records[0][first:])
    await house.refused(401, "invalid_api_key", "/read/v1/orgs/globex/usage", "globex/web")
    await house.refused(403, "organization_suspended", "/read/v1/orgs/globex/usage", "globex/batch")
    await house.get("/read/v1/orgs/globex/usage", "globex/org-viewer")
