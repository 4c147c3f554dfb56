"""Who may give which commands, and that others are told nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin_house import BUDGET, House, admin_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with admin_house(tmp_path) as made:
        yield made


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
