"""`/read/v1/orgs/{org}/budgets`: budgets with what is consumed and held, now or as of a past moment."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response

from api.read.call import Call, Reading, answered, completeness
from api.read.shapes import Limit, Params, cursor_of, parse_moment, rfc3339, told_by
from domain.errors import NotFound, invalid
from domain.money import format_usd
from domain.period import period_json
from projections import balances, directory
from projections.reads.budgets import BudgetStanding
from projections.reads.freshness import Standing

router = APIRouter(prefix="/read/v1/orgs/{org}/budgets", tags=["budgets"])

_VIEWS = (directory.NAME, balances.NAME)


class OneBudget(Params):
    """`as_of`: a past moment; everything that had happened by then counts."""

    as_of: str | None = None


class ManyBudgets(OneBudget):
    limit: Limit = 100
    cursor: str | None = None


@router.get("", summary="Budgets with their balances, by id")
async def budgets(call: Reading, org: str, query: Annotated[ManyBudgets, Query()]) -> Response:
    call.sees(org)
    standing = await call.standing(*_VIEWS, org=org)
    after = "" if query.cursor is None else told_by(query.cursor)
    if query.as_of is None:
        now = call.deps.clock()
        found = list(await call.ask(call.deps.budgets.page, org, after, query.limit + 1, now))
    else:
        past = await _past(call, org, query.as_of)
        found = [budget for budget in past if budget.id > after][: query.limit + 1]
    page, more = found[: query.limit], len(found) > query.limit
    data = [document(budget, standing) for budget in page if _visible(call, budget)]
    next_cursor = cursor_of(page[-1].id) if more else None
    return answered({"data": data, "next_cursor": next_cursor}, _told(query.as_of, standing))


@router.get("/{budget}", summary="One budget with its balance")
async def budget(call: Reading, org: str, budget: str, query: Annotated[OneBudget, Query()]) -> Response:
    call.sees(org)
    standing = await call.standing(*_VIEWS, org=org)
    if query.as_of is None:
        found = await call.ask(call.deps.budgets.get, org, budget, call.deps.clock())
    else:
        found = next((one for one in await _past(call, org, query.as_of) if one.id == budget), None)
    if found is None or not _visible(call, found):
        raise NotFound("no such budget")
    standing = _told(query.as_of, standing)
    return answered(document(found, standing), standing)


async def _past(call: Call, org: str, as_of: str) -> list[BudgetStanding]:
    moment = parse_moment(as_of, "as_of")
    if moment > call.deps.clock():
        raise invalid("as_of", "must not be in the future")
    return list(await call.ask(call.deps.past.budgets, org, moment))


def _told(as_of: str | None, standing: Standing) -> Standing:
    """What was folded from the log is complete up to the moment asked for."""
    if as_of is None:
        return standing
    moment = parse_moment(as_of, "as_of")
    return Standing(moment, moment)


def _visible(call: Call, budget: BudgetStanding) -> bool:
    """A service key sees the budgets of its project, its user and itself: what the organization spends is not its."""
    reader, scope = call.reader, budget.terms.scope
    if reader.project is None:
        return True
    return (
        scope.id is not None
        and {"project": reader.project, "user": reader.user, "key": reader.key}.get(scope.kind) == scope.id
    )


def document(budget: BudgetStanding, standing: Standing) -> dict[str, Any]:
    """A budget as it is shown: `limit_usd` is the limit in force, `estimated_usd` a part of `consumed_usd`."""
    terms = budget.terms
    return {
        "id": budget.id,
        "version": budget.version,
        "org": budget.org,
        "scope": msgspec.to_builtins(terms.scope),
        "mode": terms.mode,
        "models": terms.models,
        "period": period_json(terms.period),
        "timezone": terms.period.timezone,
        "period_start": rfc3339(budget.period_start),
        "period_end": rfc3339(budget.period_end),
        "limit_usd": format_usd(budget.limit),
        "consumed_usd": format_usd(budget.sums.consumed),
        "held_usd": format_usd(budget.sums.held),
        "estimated_usd": format_usd(budget.sums.estimated),
        "remaining_usd": format_usd(budget.remaining),
        "forecast_usd": None if budget.forecast is None else format_usd(budget.forecast),
        **completeness(standing),
    }
