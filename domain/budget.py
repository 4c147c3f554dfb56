"""Budgets: how much may be spent in a scope, per period. What is spent is not known here: that is the gate's and the log's.

A budget's scope and period (with zone, anchor and start of week) are for life. Removed and set again it begins a new
life, whose buckets start at zero. It counts what is admitted after it exists.
"""

from datetime import datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from domain.errors import Conflict, NotFound, invalid
from domain.inputs import model_list, reason_text
from domain.money import MAX_LIMIT, NANO, format_usd
from domain.period import Period

KIND = "budget"

ScopeKind = Literal["org", "project", "user", "key"]

MAX_THRESHOLDS = 20

THRESHOLDS = (0.5, 0.8, 1.0)
"""Fractions of the limit at which a budget that names none says so."""


class Scope(Struct, frozen=True, kw_only=True):
    """Whose requests count: all of the organization (`id` None), or those of one project, user or key."""

    kind: ScopeKind
    id: str | None = None


# ---------------------------------------------------------------- events: stored format


class BudgetSet(Struct, frozen=True, kw_only=True):
    """All terms of a budget, new, changed, or set again after removal (then `life` is greater). Money in nano-dollars."""

    scope: Scope
    limit: int
    limit_version: int
    currency: str = "USD"
    period: Period
    mode: Literal["hard", "soft"]
    models: tuple[str, ...] | None
    thresholds: tuple[float, ...]
    life: int
    created_at: datetime


class BudgetLimitChanged(Struct, frozen=True, kw_only=True):
    limit: int
    before: int
    limit_version: int


class BudgetAdjusted(Struct, frozen=True, kw_only=True):
    """`amount` (nano-dollars, may be negative) moves the limit in force; `adjustments` is their sum after it."""

    amount: int
    adjustments: int
    limit_version: int
    reason: str


class BudgetRemoved(Struct, frozen=True, kw_only=True):
    reason: str | None


Event = BudgetSet | BudgetLimitChanged | BudgetAdjusted | BudgetRemoved

EVENTS: tuple[type[Struct], ...] = (BudgetSet, BudgetLimitChanged, BudgetAdjusted, BudgetRemoved)


# ---------------------------------------------------------------- state


class Budget(Struct, frozen=True, kw_only=True):
    """`limit` is what was set, `limit + adjustments` is in force; `limit_version` grows with every change of either.

    The ids of period buckets begin with `life`, and only what is admitted after `created_at` counts.
    """

    scope: Scope
    limit: int
    limit_version: int
    currency: str
    period: Period
    mode: Literal["hard", "soft"]
    models: tuple[str, ...] | None
    thresholds: tuple[float, ...]
    life: int
    created_at: datetime
    adjustments: int = 0
    removed: bool = False

    @property
    def effective_limit(self) -> int:
        """The limit in force, nano-dollars."""
        return self.limit + self.adjustments


def evolve(state: Budget | None, event: Event) -> Budget | None:
    """The state after `event`."""
    if isinstance(event, BudgetSet):
        same_life = state is not None and not state.removed
        return Budget(
            scope=event.scope,
            limit=event.limit,
            limit_version=event.limit_version,
            currency=event.currency,
            period=event.period,
            mode=event.mode,
            models=event.models,
            thresholds=event.thresholds,
            life=event.life,
            created_at=event.created_at,
            adjustments=state.adjustments if state is not None and same_life else 0,
        )
    if state is None:
        return None
    match event:
        case BudgetLimitChanged():
            return replace(state, limit=event.limit, limit_version=event.limit_version)
        case BudgetAdjusted():
            return replace(state, adjustments=event.adjustments, limit_version=event.limit_version)
        case BudgetRemoved():
            return replace(state, removed=True)


# ---------------------------------------------------------------- commands and decisions


class SetBudget(Struct, frozen=True, kw_only=True):
    scope: Scope
    limit: int
    period: Period
    mode: Literal["hard", "soft"] = "hard"
    models: tuple[str, ...] | None = None
    thresholds: tuple[float, ...] = THRESHOLDS
    at: datetime


class AdjustBudget(Struct, frozen=True, kw_only=True):
    amount: int
    reason: str


class RemoveBudget(Struct, frozen=True, kw_only=True):
    reason: str | None = None


Command = SetBudget | AdjustBudget | RemoveBudget


def decide(command: Command, state: Budget | None) -> list[Event]:
    """The events of `command`; none if it is so already.

    Raises `Conflict` (``budget_scope_fixed``), `NotFound`, `Invalid`.
    """
    if isinstance(command, SetBudget):
        return _set(command, state)
    if state is None or state.removed:
        if isinstance(command, RemoveBudget) and state is not None:
            return []
        raise NotFound("no such budget")
    match command:
        case AdjustBudget():
            return _adjusted(command, state)
        case RemoveBudget():
            return [BudgetRemoved(reason=reason_text(command.reason))]


def _set(command: SetBudget, state: Budget | None) -> list[Event]:
    if (command.scope.id is None) != (command.scope.kind == "org"):
        raise invalid("scope.id", "must name the project, user or key; an org scope has none")
    alive = state is not None and not state.removed
    _in_range(command.limit + (state.adjustments if state is not None and alive else 0), "limit_usd")
    terms = BudgetSet(
        scope=command.scope,
        limit=command.limit,
        limit_version=1 if state is None else state.limit_version + 1,
        period=command.period,
        mode=command.mode,
        models=model_list(command.models),
        thresholds=_thresholds(command.thresholds),
        life=1 if state is None else state.life + 1,
        created_at=command.at,
    )
    if state is None or state.removed:
        return [terms]
    if (terms.scope, terms.period) != (state.scope, state.period):
        raise Conflict(
            "scope, period, timezone, week_start and anchor of a budget are fixed for life: remove it and set it again",
            code="budget_scope_fixed",
        )
    if (terms.mode, terms.models, terms.thresholds) == (state.mode, state.models, state.thresholds):
        return _limit_changed(command.limit, state)
    version = state.limit_version + (command.limit != state.limit)
    return [replace(terms, limit_version=version, life=state.life, created_at=state.created_at)]


def _limit_changed(limit: int, state: Budget) -> list[Event]:
    if limit == state.limit:
        return []
    _in_range(limit + state.adjustments, "limit_usd")
    return [BudgetLimitChanged(limit=limit, before=state.limit, limit_version=state.limit_version + 1)]


def _adjusted(command: AdjustBudget, state: Budget) -> list[Event]:
    if command.amount == 0:
        raise invalid("amount_usd", "must not be zero")
    _in_range(state.effective_limit + command.amount, "amount_usd")
    return [
        BudgetAdjusted(
            amount=command.amount,
            adjustments=state.adjustments + command.amount,
            limit_version=state.limit_version + 1,
            reason=reason_text(command.reason) or "",
        )
    ]


def _in_range(limit: int, field: str) -> None:
    if not 0 <= limit <= MAX_LIMIT:
        raise invalid(
            field,
            f"the limit in force would be {format_usd(limit)}; it must be between 0 and {MAX_LIMIT // NANO} dollars",
        )


def _thresholds(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) > MAX_THRESHOLDS or not all(0 < value <= 10 for value in values):
        raise invalid("thresholds", f"must be at most {MAX_THRESHOLDS} fractions of the limit, above 0 and at most 10")
    return tuple(sorted(set(values)))
