"""`/orgs`: organizations."""

from collections.abc import Iterable
from typing import Literal

from fastapi import APIRouter, Response

from api.admin.call import Call, Caller, Paged
from api.admin.limits import OrgRateLimits, OrgRateLimitsOut, merged, shown_of_org
from api.admin.shapes import Body, Resource, Why
from commands.handling import Changes
from commands.ports import Entry
from commands.rules import change
from domain.errors import Forbidden
from domain.ids import chosen_id
from domain.organization import (
    KIND,
    UNLIMITED,
    BudgetStatus,
    ChangeOrganization,
    CloseOrganization,
    Command,
    CreateOrganization,
    Fallback,
    FallbackReason,
    Organization,
    ReinstateOrganization,
    SuspendOrganization,
)

router = APIRouter(prefix="/admin/v1/orgs", tags=["organizations"])

Fallbacks = dict[str, dict[FallbackReason, str]]


class NewOrg(Body):
    id: str
    name: str
    timezone: str = "UTC"
    budget_status: BudgetStatus = 402
    limits: OrgRateLimits = OrgRateLimits()


class OrgPatch(Body):
    """`fallbacks`: of a model, for which reason which other one serves its requests; all of them, or `{}` for none."""

    name: str | None = None
    timezone: str | None = None
    budget_status: BudgetStatus | None = None
    limits: OrgRateLimits | None = None
    fallbacks: Fallbacks | None = None


class OrgOut(Resource):
    name: str
    timezone: str
    budget_status: int
    limits: OrgRateLimitsOut
    status: Literal["active", "suspended", "closed"]
    fallbacks: Fallbacks


def document(entry: Entry) -> OrgOut:
    state: Organization = entry.state
    return OrgOut(
        id=entry.id,
        version=entry.version,
        name=state.name,
        timezone=state.timezone,
        budget_status=state.budget_status,
        limits=shown_of_org(state.limits),
        status=state.status,
        fallbacks=state.fallbacks_by_model,
    )


@router.post("", status_code=201, response_model=OrgOut)
async def create(body: NewOrg, call: Caller) -> Response:
    if call.admin.org is not None:
        raise Forbidden("only a platform admin may do this")
    org = chosen_id(body.id)
    command = CreateOrganization(
        name=body.name,
        timezone=body.timezone,
        budget_status=body.budget_status,
        limits=merged(UNLIMITED, body.limits),
    )
    return await _changed(call, org, command, 201)


@router.get("")
async def list_all(call: Caller, page: Paged) -> Response:
    """Every organization the caller can see."""
    return await call.page(call.admin.org, KIND, page, document)


@router.get("/{org}", response_model=OrgOut)
async def show(org: str, call: Caller) -> Response:
    call.may("read", org)
    return await call.show(org, KIND, org, document)


@router.patch("/{org}", response_model=OrgOut)
async def patch(org: str, body: OrgPatch, call: Caller) -> Response:
    call.may("manage", org)

    def effect(changes: Changes) -> None:
        state: Organization | None = changes.state(org, KIND, org)
        before = UNLIMITED if state is None else state.limits
        command = ChangeOrganization(
            name=body.name,
            timezone=body.timezone,
            budget_status=body.budget_status,
            limits=merged(before, body.limits) if "limits" in body.model_fields_set else None,
            fallbacks=None if body.fallbacks is None else tuple(_fallbacks(body.fallbacks)),
        )
        change(changes, org, KIND, org, command)

    return await call.change(org, KIND, org, effect, document)


@router.delete("/{org}", status_code=204)
async def close(org: str, call: Caller) -> Response:
    call.governs(org)
    return await _changed(call, org, CloseOrganization(), 204)


@router.post("/{org}/suspend", response_model=OrgOut)
async def suspend(org: str, call: Caller, reason: Why) -> Response:
    call.governs(org)
    return await _changed(call, org, SuspendOrganization(reason=reason))


@router.post("/{org}/reinstate", response_model=OrgOut)
async def reinstate(org: str, call: Caller, reason: Why) -> Response:
    call.governs(org)
    return await _changed(call, org, ReinstateOrganization(reason=reason))


def _fallbacks(given: Fallbacks) -> Iterable[Fallback]:
    for model, reasons in given.items():
        for reason, to in reasons.items():
            yield Fallback(model=model, reason=reason, to=to)


async def _changed(call: Call, org: str, command: Command, status: int = 200) -> Response:
    def effect(changes: Changes) -> None:
        change(changes, org, KIND, org, command)

    return await call.change(org, KIND, org, effect, document, status)
