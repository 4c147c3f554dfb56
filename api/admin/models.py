"""`/models`: public names, where they are routed, and their caps."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field, StrictInt

from api.admin.call import Caller, Paged
from api.admin.limits import RateLimits, merged, shown
from api.admin.shapes import Body, Count, Resource
from commands.handling import Changes
from commands.ports import Entry
from commands.routing import publish_model
from commands.rules import change
from domain.ids import PLATFORM
from domain.inputs import model_id
from domain.limits import UNLIMITED
from domain.model import KIND, Balance, Model, PublishModel, Route, WithdrawModel

router = APIRouter(prefix="/admin/v1/models", tags=["models"])

Small = Annotated[StrictInt, Field(ge=0, le=1_000_000)]


class RouteBody(Body):
    backend: str
    upstream_model: str
    weight: Small = 1
    tier: Small = 0


class ModelBody(Body):
    routes: tuple[RouteBody, ...]
    max_output_tokens: Count
    context_tokens: Count
    tokenizer: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    balance: Balance = "weighted"
    limits: RateLimits = RateLimits()


class ModelOut(Resource):
    routes: tuple[RouteBody, ...]
    max_output_tokens: int
    context_tokens: int
    tokenizer: str | None
    balance: Balance
    limits: RateLimits
    bound_exceeded: bool


def document(entry: Entry) -> ModelOut:
    state: Model = entry.state
    return ModelOut(
        id=entry.id,
        version=entry.version,
        routes=tuple(
            RouteBody(backend=route.backend, upstream_model=route.upstream_model, weight=route.weight, tier=route.tier)
            for route in state.routes
        ),
        max_output_tokens=state.max_output_tokens,
        context_tokens=state.context_tokens,
        tokenizer=state.tokenizer,
        balance=state.balance,
        limits=shown(state.limits),
        bound_exceeded=state.bound_exceeded,
    )


@router.put("/{model}", response_model=ModelOut)
async def put(model: str, body: ModelBody, call: Caller) -> Response:
    call.platform()
    id = model_id(model)
    command = PublishModel(
        routes=tuple(Route(**route.model_dump()) for route in body.routes),
        max_output_tokens=body.max_output_tokens,
        context_tokens=body.context_tokens,
        tokenizer=body.tokenizer,
        balance=body.balance,
        limits=merged(UNLIMITED, body.limits),
    )

    def effect(changes: Changes) -> None:
        publish_model(changes, id, command)

    return await call.change(PLATFORM, KIND, id, effect, document)


@router.get("")
async def list_all(call: Caller, page: Paged) -> Response:
    call.platform()
    return await call.page(PLATFORM, KIND, page, document)


@router.get("/{model}", response_model=ModelOut)
async def show(model: str, call: Caller) -> Response:
    call.platform()
    return await call.show(PLATFORM, KIND, model, document)


@router.delete("/{model}", status_code=204)
async def withdraw(model: str, call: Caller) -> Response:
    call.platform()

    def effect(changes: Changes) -> None:
        change(changes, PLATFORM, KIND, model, WithdrawModel())

    return await call.change(PLATFORM, KIND, model, effect, document, 204)
