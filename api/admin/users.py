"""`/orgs/{org}/users`."""

from typing import Literal

from fastapi import APIRouter, Response

from api.admin.call import Call, Caller, Paged
from api.admin.limits import RateLimits, merged, shown
from api.admin.shapes import Body, Resource, Why
from commands.handling import Changes, Reply
from commands.ports import Entry
from commands.rules import change
from domain.limits import UNLIMITED
from domain.user import (
    KIND,
    AcceptInvitation,
    ChangeUser,
    Command,
    InviteUser,
    ReinstateUser,
    RemoveUser,
    SuspendUser,
    User,
    UserRole,
)

router = APIRouter(prefix="/admin/v1/orgs/{org}/users", tags=["users"])


class NewUser(Body):
    email: str
    role: UserRole = "member"
    limits: RateLimits = RateLimits()


class UserPatch(Body):
    """Fields left out stay."""

    role: UserRole | None = None
    limits: RateLimits | None = None


class UserOut(Resource):
    org: str
    email: str
    role: UserRole
    limits: RateLimits
    status: Literal["invited", "active", "suspended", "removed"]


def document(entry: Entry) -> UserOut:
    state = entry.state
    return UserOut(
        id=entry.id,
        version=entry.version,
        org=entry.org,
        email=state.email,
        role=state.role,
        limits=shown(state.limits),
        status=state.status,
    )


@router.post("", status_code=201, response_model=UserOut)
async def invite(org: str, body: NewUser, call: Caller) -> Response:
    call.may("manage", org)

    def plan(changes: Changes) -> Reply:
        user = changes.new_id("usr")
        command = InviteUser(email=body.email, role=body.role, limits=merged(UNLIMITED, body.limits))
        state = change(changes, org, KIND, user, command)
        version = changes.version(org, KIND, user)
        shown = document(Entry(org, KIND, user, version, 0, state))
        return Reply(shown.model_dump_json().encode(), 201, version)

    return await call.command(plan)


@router.get("")
async def list_all(org: str, call: Caller, page: Paged) -> Response:
    call.may("read", org)
    return await call.page(org, KIND, page, document)


@router.get("/{user}", response_model=UserOut)
async def show(org: str, user: str, call: Caller) -> Response:
    call.may("read", org)
    return await call.show(org, KIND, user, document)


@router.patch("/{user}", response_model=UserOut)
async def patch(org: str, user: str, body: UserPatch, call: Caller) -> Response:
    call.may("manage", org)

    def effect(changes: Changes) -> None:
        state: User | None = changes.state(org, KIND, user)
        before = UNLIMITED if state is None else state.limits
        limits = merged(before, body.limits) if "limits" in body.model_fields_set else None
        change(changes, org, KIND, user, ChangeUser(role=body.role, limits=limits))

    return await call.change(org, KIND, user, effect, document)


@router.post("/{user}/accept", response_model=UserOut)
async def accept(org: str, user: str, call: Caller) -> Response:
    return await _changed(call, org, user, AcceptInvitation())


@router.post("/{user}/suspend", response_model=UserOut)
async def suspend(org: str, user: str, call: Caller, reason: Why) -> Response:
    return await _changed(call, org, user, SuspendUser(reason=reason))


@router.post("/{user}/reinstate", response_model=UserOut)
async def reinstate(org: str, user: str, call: Caller, reason: Why) -> Response:
    return await _changed(call, org, user, ReinstateUser(reason=reason))


@router.delete("/{user}", status_code=204)
async def remove(org: str, user: str, call: Caller) -> Response:
    return await _changed(call, org, user, RemoveUser(), 204)


async def _changed(call: Call, org: str, user: str, command: Command, status: int = 200) -> Response:
    call.may("manage", org)

    def effect(changes: Changes) -> None:
        change(changes, org, KIND, user, command)

    return await call.change(org, KIND, user, effect, document, status)
