"""`/admin-keys`: keys of the command and read APIs. A secret is in the answer that hands it out, once."""

from typing import Any

from fastapi import APIRouter, Response

from api.admin.call import Call, Caller, Paged
from api.admin.shapes import Body, Resource, Why
from commands.handling import Changes, Reply
from commands.keys import issue_admin_key, revoke_admin_key
from commands.ports import Entry
from domain.admin_key import KIND, AdminRole
from domain.ids import PLATFORM

router = APIRouter(prefix="/admin/v1/admin-keys", tags=["admin keys"])


class NewAdminKey(Body):
    name: str
    role: AdminRole
    org: str | None = None


class AdminKeyOut(Resource):
    name: str
    role: AdminRole
    org: str | None
    redacted: str
    revoked: bool


class NewAdminKeyOut(AdminKeyOut):
    secret: str


def document(entry: Entry) -> AdminKeyOut:
    return AdminKeyOut(**_fields(entry))


@router.post("", status_code=201, response_model=NewAdminKeyOut)
async def issue(body: NewAdminKey, call: Caller) -> Response:
    call.platform()

    def plan(changes: Changes) -> Reply:
        issued = issue_admin_key(changes, name=body.name, role=body.role, org=body.org)
        version = changes.version(PLATFORM, KIND, issued.id)
        entry = Entry(PLATFORM, KIND, issued.id, version, 0, issued.state)
        shown = NewAdminKeyOut(secret=issued.secret, **_fields(entry))
        return Reply(shown.model_dump_json().encode(), 201, version, sealed=True)

    return await call.command(plan)


@router.get("")
async def list_all(call: Caller, page: Paged) -> Response:
    call.platform()
    return await call.page(PLATFORM, KIND, page, document)


@router.get("/{key}", response_model=AdminKeyOut)
async def show(key: str, call: Caller) -> Response:
    call.platform()
    return await call.show(PLATFORM, KIND, key, document)


@router.post("/{key}/revoke", response_model=AdminKeyOut)
async def revoke(key: str, call: Caller, reason: Why) -> Response:
    return await _revoked(call, key, reason, 200)


@router.delete("/{key}", status_code=204)
async def delete(key: str, call: Caller) -> Response:
    return await _revoked(call, key, None, 204)


async def _revoked(call: Call, key: str, reason: str | None, status: int) -> Response:
    call.platform()

    def effect(changes: Changes) -> None:
        revoke_admin_key(changes, key, reason)

    return await call.change(PLATFORM, KIND, key, effect, document, status)


def _fields(entry: Entry) -> dict[str, Any]:
    state = entry.state
    return {
        "id": entry.id,
        "version": entry.version,
        "name": state.name,
        "role": state.role,
        "org": state.org,
        "redacted": state.redacted,
        "revoked": state.revoked,
    }
