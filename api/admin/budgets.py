"""`/orgs/{org}/budgets`: their terms. What is consumed and held is in the read API."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from msgspec import UNSET
from pydantic import AwareDatetime, Field, StrictInt, WithJsonSchema

from api.admin.call import Call, Caller, Paged
from api.admin.shapes import Amount, Body, Limit, Resource
from commands.budgets import BudgetTerms, change_budget, set_budget
from commands.handling import Changes
from commands.ports import Entry
from commands.rules import change
from domain.budget import KIND, THRESHOLDS, AdjustBudget, Budget, RemoveBudget, Scope, ScopeKind
from domain.ids import chosen_id
from domain.money import format_usd
from domain.period import period_json

router = APIRouter(prefix="/admin/v1/orgs/{org}/budgets", tags=["budgets"])

Period = Annotated[
    Any,
    WithJsonSchema(
        {
            "oneOf": [
                {"enum": ["day", "week", "month", "quarter", "year", "lifetime"]},
                {"type": "object", "properties": {"every": {"type": "string", "examples": ["5h"]}}},
                {"type": "object", "properties": {"rolling_days": {"type": "integer"}}},
            ]
        }
    ),
]


class ScopeBody(Body):
    kind: ScopeKind
    id: str | None = None


class BudgetBody(Body):
    """All terms. Zone, start of week and anchor that are left out stay as they are; the zone of a new budget is then
    its organization's."""

    scope: ScopeBody
    limit_usd: Limit
    period: Period
    timezone: str | None = None
    week_start: StrictInt | None = None
    anchor: str | None = None
    mode: Literal["hard", "soft"] = "hard"
    models: tuple[str, ...] | None = None
    thresholds: tuple[Annotated[float, Field(strict=True)], ...] = THRESHOLDS


class BudgetPatch(Body):
    """Terms to change; those left out stay."""

    scope: ScopeBody | None = None
    limit_usd: Limit | None = None
    period: Period = None
    timezone: str | None = None
    week_start: StrictInt | None = None
    anchor: str | None = None
    mode: Literal["hard", "soft"] | None = None
    models: tuple[str, ...] | None = None
    thresholds: tuple[Annotated[float, Field(strict=True)], ...] | None = None


class Adjustment(Body):
    amount_usd: Amount
    reason: str = ""


class BudgetOut(Resource):
    """`limit_usd` is what was set; `effective_limit_usd`, with the adjustments, is in force."""

    org: str
    scope: ScopeBody
    limit_usd: str
    adjustments_usd: str
    effective_limit_usd: str
    currency: str
    period: Period
    timezone: str
    week_start: int
    anchor: AwareDatetime | None
    mode: Literal["hard", "soft"]
    models: tuple[str, ...] | None
    thresholds: tuple[float, ...]
    created_at: AwareDatetime


def document(entry: Entry) -> BudgetOut:
    state: Budget = entry.state
    return BudgetOut(
        id=entry.id,
        version=entry.version,
        org=entry.org,
        scope=ScopeBody(kind=state.scope.kind, id=state.scope.id),
        limit_usd=format_usd(state.limit),
        adjustments_usd=format_usd(state.adjustments),
        effective_limit_usd=format_usd(state.effective_limit),
        currency=state.currency,
        period=period_json(state.period),
        timezone=state.period.timezone,
        week_start=state.period.week_start,
        anchor=state.period.anchor,
        mode=state.mode,
        models=state.models,
        thresholds=state.thresholds,
        created_at=state.created_at,
    )


@router.put("/{budget}", response_model=BudgetOut)
async def put(org: str, budget: str, body: BudgetBody, call: Caller) -> Response:
    call.may("budgets", org)
    id, terms = chosen_id(budget, "budget"), _terms(body, ("mode", "models", "thresholds"))

    def effect(changes: Changes) -> None:
        set_budget(changes, org, id, terms)

    return await call.change(org, KIND, id, effect, document)


@router.patch("/{budget}", response_model=BudgetOut)
async def patch(org: str, budget: str, body: BudgetPatch, call: Caller) -> Response:
    call.may("budgets", org)
    terms = _terms(body, ("models",) if "models" in body.model_fields_set else ())

    def effect(changes: Changes) -> None:
        change_budget(changes, org, budget, terms)

    return await call.change(org, KIND, budget, effect, document)


@router.get("")
async def list_all(org: str, call: Caller, page: Paged) -> Response:
    call.may("read", org)
    return await call.page(org, KIND, page, document)


@router.get("/{budget}", response_model=BudgetOut)
async def show(org: str, budget: str, call: Caller) -> Response:
    call.may("read", org)
    return await call.show(org, KIND, budget, document)


@router.delete("/{budget}", status_code=204)
async def remove(org: str, budget: str, call: Caller) -> Response:
    return await _changed(call, org, budget, RemoveBudget(), 204)


@router.post("/{budget}/adjust", response_model=BudgetOut)
async def adjust(org: str, budget: str, body: Adjustment, call: Caller) -> Response:
    return await _changed(call, org, budget, AdjustBudget(amount=body.amount_usd, reason=body.reason))


async def _changed(
    call: Call, org: str, budget: str, command: AdjustBudget | RemoveBudget, status: int = 200
) -> Response:
    call.may("budgets", org)

    def effect(changes: Changes) -> None:
        change(changes, org, KIND, budget, command)

    return await call.change(org, KIND, budget, effect, document, status)


def _terms(body: BudgetBody | BudgetPatch, always: tuple[str, ...]) -> BudgetTerms:
    """The terms of a body. Null says the same as leaving out, but for the fields of `always`, and for an anchor."""
    given: dict[str, Any] = {
        "scope": None if body.scope is None else Scope(kind=body.scope.kind, id=body.scope.id),
        "limit": body.limit_usd,
        "period": body.period,
        "timezone": body.timezone,
        "week_start": body.week_start,
        "mode": body.mode,
        "models": body.models,
        "thresholds": body.thresholds,
    }
    terms = {name: UNSET if value is None and name not in always else value for name, value in given.items()}
    return BudgetTerms(**terms, anchor=body.anchor if "anchor" in body.model_fields_set else UNSET)
