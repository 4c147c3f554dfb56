"""`/backends`: where requests are sent. A credential goes in and never comes out."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from msgspec import UNSET, structs
from pydantic import Field, StrictInt

from api.admin.call import Call, Caller, Paged
from api.admin.shapes import Body, Resource, Why
from commands.handling import Changes
from commands.ports import Entry
from commands.routing import put_backend
from commands.rules import change
from domain.backend import (
    KIND,
    USUAL,
    Backend,
    CapField,
    Connection,
    DrainBackend,
    KillBackend,
    Protocol,
    RestoreBackend,
    Terms,
)
from domain.ids import PLATFORM, chosen_id

router = APIRouter(prefix="/admin/v1/backends", tags=["backends"])

Seconds = Annotated[float, Field(strict=True)]
Most = Annotated[StrictInt, Field(ge=1, le=1_000_000_000)]


class BackendBody(Body):
    """`credential` left out stays as it is; null removes it."""

    url: str
    protocol: Protocol
    credential: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+$")] | None = None
    timeout_seconds: Seconds = 600.0
    weight: Annotated[StrictInt, Field(le=1_000_000)] = 1
    first_byte_seconds: Seconds | None = USUAL.first_byte_seconds
    idle_seconds: Seconds | None = USUAL.idle_seconds
    max_concurrent: Most | None = None
    requests_per_minute: Most | None = None
    health_path: str | None = None
    health_seconds: Seconds = USUAL.health_seconds
    output_cap_field: CapField | None = None

    def terms(self) -> Terms:
        return Terms(**{name: getattr(self, name) for name in Terms.__struct_fields__})


class BackendOut(Resource):
    url: str
    protocol: Protocol
    has_credential: bool
    timeout_seconds: float
    weight: int
    first_byte_seconds: float | None
    idle_seconds: float | None
    max_concurrent: int | None
    requests_per_minute: int | None
    health_path: str | None
    health_seconds: float
    output_cap_field: CapField | None
    state: Literal["active", "drained", "killed"]


def document(entry: Entry) -> BackendOut:
    state: Backend = entry.state
    return BackendOut(
        id=entry.id,
        version=entry.version,
        url=state.url,
        protocol=state.protocol,
        has_credential=state.credential is not None,
        timeout_seconds=state.timeout_seconds,
        weight=state.weight,
        **structs.asdict(state.terms),
        state=state.state,
    )


@router.put("/{backend}", response_model=BackendOut)
async def put(backend: str, body: BackendBody, call: Caller) -> Response:
    call.platform()
    id = chosen_id(backend, "backend")
    connection = Connection(
        url=body.url,
        protocol=body.protocol,
        timeout_seconds=body.timeout_seconds,
        weight=body.weight,
        terms=body.terms(),
    )
    credential = body.credential if "credential" in body.model_fields_set else UNSET

    def effect(changes: Changes) -> None:
        put_backend(changes, id, connection, credential)

    return await call.change(PLATFORM, KIND, id, effect, document)


@router.get("")
async def list_all(call: Caller, page: Paged) -> Response:
    call.platform()
    return await call.page(PLATFORM, KIND, page, document)


@router.get("/{backend}", response_model=BackendOut)
async def show(backend: str, call: Caller) -> Response:
    call.platform()
    return await call.show(PLATFORM, KIND, backend, document)


@router.post("/{backend}/drain", response_model=BackendOut)
async def drain(backend: str, call: Caller, reason: Why) -> Response:
    return await _changed(call, backend, DrainBackend(reason=reason))


@router.post("/{backend}/kill", response_model=BackendOut)
async def kill(backend: str, call: Caller, reason: Why) -> Response:
    return await _changed(call, backend, KillBackend(reason=reason))


@router.post("/{backend}/restore", response_model=BackendOut)
async def restore(backend: str, call: Caller, reason: Why) -> Response:
    return await _changed(call, backend, RestoreBackend(reason=reason))


async def _changed(call: Call, backend: str, command: DrainBackend | KillBackend | RestoreBackend) -> Response:
    call.platform()

    def effect(changes: Changes) -> None:
        change(changes, PLATFORM, KIND, backend, command)

    return await call.change(PLATFORM, KIND, backend, effect, document)
