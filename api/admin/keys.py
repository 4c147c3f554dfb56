"""`/orgs/{org}/keys`: service keys. A secret is in the answer that hands it out, once."""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import AwareDatetime, Field, StrictInt

from api.admin.call import Caller, Paged
from api.admin.limits import RateLimits, merged, shown
from api.admin.shapes import Body, Resource, Why
from commands.handling import Changes, Reply
from commands.keys import IssuedKey, issue_service_key, rotate_service_key
from commands.ports import Entry
from commands.rules import change
from domain.errors import NotFound
from domain.limits import UNLIMITED
from domain.service_key import KIND, ChangeKeyRights, KeyRights, RevokeKey, ServiceKey

router = APIRouter(prefix="/admin/v1/orgs/{org}/keys", tags=["service keys"])


class NewKey(Body):
    name: str
    project: str
    user: str | None = None
    models: tuple[str, ...] | None = None
    expires_at: AwareDatetime | None = None
    limits: RateLimits = RateLimits()


class KeyPatch(Body):
    """Fields left out stay; null removes a restriction."""

    models: tuple[str, ...] | None = None
    limits: RateLimits | None = None


class Rotation(Body):
    grace_seconds: Annotated[StrictInt, Field(ge=0)] = 0


class KeyOut(Resource):
    org: str
    name: str
    project: str
    user: str | None
    models: tuple[str, ...] | None
    limits: RateLimits
    expires_at: AwareDatetime | None
    redacted: str
    revoked: bool


class NewKeyOut(KeyOut):
    secret: str


def document(entry: Entry) -> KeyOut:
    return KeyOut(**_fields(entry))


@router.post("", status_code=201, response_model=NewKeyOut)
async def issue(org: str, body: NewKey, call: Caller) -> Response:
    call.may("manage", org)

    def plan(changes: Changes) -> Reply:
        issued = issue_service_key(
            changes,
            org,
            name=body.name,
            project=body.project,
            user=body.user,
            rights=KeyRights(models=body.models, limits=merged(UNLIMITED, body.limits)),
            expires_at=body.expires_at,
        )
        return _with_secret(changes, org, issued, 201)

    return await call.command(plan)


@router.get("")
async def list_all(org: str, call: Caller, page: Paged) -> Response:
    call.may("read", org)
    return await call.page(org, KIND, page, document)


@router.get("/{key}", response_model=KeyOut)
async def show(org: str, key: str, call: Caller) -> Response:
    call.may("read", org)
    return await call.show(org, KIND, key, document)


@router.patch("/{key}", response_model=KeyOut)
async def change_rights(org: str, key: str, body: KeyPatch, call: Caller) -> Response:
    call.may("manage", org)

    def effect(changes: Changes) -> None:
        state: ServiceKey | None = changes.state(org, KIND, key)
        if state is None:
            raise NotFound("no such key")
        change(changes, org, KIND, key, ChangeKeyRights(rights=_patched(state, body)))

    return await call.change(org, KIND, key, effect, document)


@router.post("/{key}/rotate", response_model=NewKeyOut)
async def rotate(org: str, key: str, call: Caller, body: Rotation | None = None) -> Response:
    call.may("manage", org)

    def plan(changes: Changes) -> Reply:
        rotated = rotate_service_key(changes, org, key, body.grace_seconds if body else 0)
        return _with_secret(changes, org, rotated, 200)

    return await call.command(plan)


@router.post("/{key}/revoke", response_model=KeyOut)
async def revoke(org: str, key: str, call: Caller, reason: Why) -> Response:
    call.may("manage", org)

    def effect(changes: Changes) -> None:
        change(changes, org, KIND, key, RevokeKey(reason=reason))

    return await call.change(org, KIND, key, effect, document)


def _patched(state: ServiceKey, body: KeyPatch) -> KeyRights:
    models = body.models if "models" in body.model_fields_set else state.models
    limits = merged(state.limits, body.limits) if "limits" in body.model_fields_set else state.limits
    return KeyRights(models=models, limits=limits)


def _with_secret(changes: Changes, org: str, issued: IssuedKey, status: int) -> Reply:
    version = changes.version(org, KIND, issued.id)
    shown = NewKeyOut(secret=issued.secret, **_fields(Entry(org, KIND, issued.id, version, 0, issued.state)))
    return Reply(shown.model_dump_json().encode(), status, version, sealed=True)


def _fields(entry: Entry) -> dict[str, Any]:
    state: ServiceKey = entry.state
    return {
        "id": entry.id,
        "version": entry.version,
        "org": entry.org,
        "name": state.name,
        "project": state.project,
        "user": state.user,
        "models": state.models,
        "limits": shown(state.limits),
        "expires_at": state.expires_at,
        "redacted": state.redacted,
        "revoked": state.revoked,
    }
