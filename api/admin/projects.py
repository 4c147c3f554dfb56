"""`/orgs/{org}/projects`."""

from typing import Literal

from fastapi import APIRouter, Response

from api.admin.call import Call, Caller, Paged
from api.admin.limits import RateLimits, merged, shown
from api.admin.shapes import Body, Resource, Why
from commands.handling import Changes
from commands.ports import Entry
from commands.rules import change
from domain.ids import chosen_id
from domain.limits import UNLIMITED
from domain.project import (
    KIND,
    ChangeProject,
    CloseProject,
    Command,
    CreateProject,
    Project,
    ReinstateProject,
    SuspendProject,
)

router = APIRouter(prefix="/admin/v1/orgs/{org}/projects", tags=["projects"])


class NewProject(Body):
    id: str
    name: str
    limits: RateLimits = RateLimits()


class ProjectPatch(Body):
    """Fields left out stay."""

    name: str | None = None
    limits: RateLimits | None = None


class ProjectOut(Resource):
    org: str
    name: str
    limits: RateLimits
    status: Literal["active", "suspended", "closed"]


def document(entry: Entry) -> ProjectOut:
    state = entry.state
    return ProjectOut(
        id=entry.id,
        version=entry.version,
        org=entry.org,
        name=state.name,
        limits=shown(state.limits),
        status=state.status,
    )


@router.post("", status_code=201, response_model=ProjectOut)
async def create(org: str, body: NewProject, call: Caller) -> Response:
    return await _changed(
        call, org, chosen_id(body.id), CreateProject(name=body.name, limits=merged(UNLIMITED, body.limits)), 201
    )


@router.get("")
async def list_all(org: str, call: Caller, page: Paged) -> Response:
    call.may("read", org)
    return await call.page(org, KIND, page, document)


@router.get("/{project}", response_model=ProjectOut)
async def show(org: str, project: str, call: Caller) -> Response:
    call.may("read", org)
    return await call.show(org, KIND, project, document)


@router.patch("/{project}", response_model=ProjectOut)
async def patch(org: str, project: str, body: ProjectPatch, call: Caller) -> Response:
    call.may("manage", org)

    def effect(changes: Changes) -> None:
        state: Project | None = changes.state(org, KIND, project)
        before = UNLIMITED if state is None else state.limits
        limits = merged(before, body.limits) if "limits" in body.model_fields_set else None
        change(changes, org, KIND, project, ChangeProject(name=body.name, limits=limits))

    return await call.change(org, KIND, project, effect, document)


@router.delete("/{project}", status_code=204)
async def close(org: str, project: str, call: Caller) -> Response:
    return await _changed(call, org, project, CloseProject(), 204)


@router.post("/{project}/suspend", response_model=ProjectOut)
async def suspend(org: str, project: str, call: Caller, reason: Why) -> Response:
    return await _changed(call, org, project, SuspendProject(reason=reason))


@router.post("/{project}/reinstate", response_model=ProjectOut)
async def reinstate(org: str, project: str, call: Caller, reason: Why) -> Response:
    return await _changed(call, org, project, ReinstateProject(reason=reason))


async def _changed(call: Call, org: str, project: str, command: Command, status: int = 200) -> Response:
    call.may("manage", org)

    def effect(changes: Changes) -> None:
        change(changes, org, KIND, project, command)

    return await call.change(org, KIND, project, effect, document, status)
