"""Setting a budget: terms left out stay as they are, and a new budget lives in its organization's time zone."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from commands.handling import Changes
from commands.rules import known_scope, open_organization
from domain import budget
from domain.budget import THRESHOLDS, Budget, Scope, SetBudget
from domain.errors import NotFound, invalid
from domain.period import Period, parse_period, period_json


class BudgetTerms(Struct, frozen=True, kw_only=True):
    """The terms a caller gave: `limit` in nano-dollars, `period` and `anchor` as `domain.period.parse_period` takes them."""

    scope: Scope | UnsetType = UNSET
    limit: int | UnsetType = UNSET
    period: object | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    week_start: int | UnsetType = UNSET
    anchor: str | UnsetType | None = UNSET
    mode: Literal["hard", "soft"] | UnsetType = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    thresholds: tuple[float, ...] | UnsetType = UNSET


_NEW = BudgetTerms(mode="hard", models=None, thresholds=THRESHOLDS)


def set_budget(changes: Changes, org: str, id: str, terms: BudgetTerms) -> Budget:
    """Sets a budget, or changes its terms. Raises what `domain.budget.decide` raises, and `Invalid` naming what is missing
    or does not exist."""
    tenant = open_organization(changes, org)
    changes.matched(org, budget.KIND, id)
    known = _known(changes, org, id)
    kept: Budget | BudgetTerms = _NEW if known is None else known
    scope = _term("scope", terms, kept)
    limit = _term("limit", terms, kept)
    for field, value in (("scope", scope), ("limit_usd", limit)):
        if value is UNSET:
            raise invalid(field, "is required")
    if known is None:
        known_scope(changes, org, scope)
    command = SetBudget(
        scope=scope,
        limit=limit,
        period=_period(terms, known, tenant.timezone),
        mode=_term("mode", terms, kept),
        models=_term("models", terms, kept),
        thresholds=_term("thresholds", terms, kept),
        at=changes.clock(),
    )
    state: Budget = changes.apply(org, budget.KIND, id, command)
    return state


def change_budget(changes: Changes, org: str, id: str, terms: BudgetTerms) -> Budget:
    """Changes terms of a budget that exists. Raises `NotFound` if there is none, and what `set_budget` raises."""
    open_organization(changes, org)
    if _known(changes, org, id) is None:
        raise NotFound("no such budget")
    return set_budget(changes, org, id, terms)


def _known(changes: Changes, org: str, id: str) -> Budget | None:
    state: Budget | None = changes.state(org, budget.KIND, id)
    return None if state is None or state.removed else state


def _term(name: str, terms: BudgetTerms, kept: Budget | BudgetTerms) -> Any:
    value = getattr(terms, name)
    return getattr(kept, name) if value is UNSET else value


def _period(terms: BudgetTerms, known: Budget | None, timezone: str) -> Period:
    if known is None and terms.period is UNSET:
        raise invalid("period", "is required")
    kept = Period(kind="lifetime", timezone=timezone) if known is None else known.period
    return parse_period(
        period_json(kept) if terms.period is UNSET else terms.period,
        kept.timezone if terms.timezone is UNSET else terms.timezone,
        kept.week_start if terms.week_start is UNSET else terms.week_start,
        kept.anchor if terms.anchor is UNSET else terms.anchor,
    )
