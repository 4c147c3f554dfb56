"""Budgets: set, limited, adjusted, removed and set again. The version of the limit only grows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from domain import budget
from domain.budget import (
    AdjustBudget,
    Budget,
    BudgetAdjusted,
    BudgetLimitChanged,
    BudgetRemoved,
    BudgetSet,
    RemoveBudget,
    Scope,
    SetBudget,
)
from domain.errors import TollhouseError
from domain.money import MAX_LIMIT, NANO
from domain.period import parse_period
from tests.unit.decider import given

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SET = SetBudget(scope=Scope(kind="org"), limit=5 * NANO, period=parse_period("month", "Europe/Vienna"), at=NOON)
WAS_SET = BudgetSet(
    scope=SET.scope,
    limit=5 * NANO,
    limit_version=1,
    period=SET.period,
    mode="hard",
    models=None,
    thresholds=(0.5, 0.8, 1.0),
    life=1,
    created_at=NOON,
)


def changed(**terms: Any) -> SetBudget:
    return replace(SET, at=NOON + timedelta(days=1), **terms)


def test_a_budget_is_set() -> None:
    """Setting the same again, later, changes nothing."""
    made = given(budget).when(SET).then(WAS_SET)
    assert made.state.effective_limit == 5 * NANO
    made.when(changed()).then_nothing_happened()


@pytest.mark.parametrize(
    "terms",
    [
        {"scope": Scope(kind="project", id="main")},
        {"period": parse_period("day", "Europe/Vienna")},
        {"period": parse_period("month", "UTC")},
        {"period": parse_period("month", "Europe/Vienna", week_start=3)},
        {"period": parse_period("month", "Europe/Vienna", anchor="2026-01-15T00:00:00")},
    ],
)
def test_scope_and_period_are_for_life(terms: dict[str, Any]) -> None:
    """Zone, start of week and anchor included; a budget removed and set again may differ."""
    given(budget, WAS_SET).when(changed(**terms)).then_refused("budget_scope_fixed")
    again = given(budget, WAS_SET, BudgetRemoved(reason=None)).when(changed(**terms))
    again.then(replace(WAS_SET, created_at=NOON + timedelta(days=1), life=2, limit_version=2, **terms))


def test_a_changed_limit_says_what_was_before() -> None:
    """Only the limit changed: the event is about the limit."""
    event = BudgetLimitChanged(limit=NANO, before=5 * NANO, limit_version=2)
    lower = given(budget, WAS_SET).when(changed(limit=NANO)).then(event)
    assert (lower.state.limit, lower.state.limit_version) == (NANO, 2)


def test_other_terms_change_within_the_same_life() -> None:
    """Mode, models and thresholds: it counts from when it was first set, and keeps its adjustments."""
    adjusted = BudgetAdjusted(amount=NANO, adjustments=NANO, limit_version=2, reason="top-up")
    softer = given(budget, WAS_SET, adjusted).when(changed(mode="soft", models=("m", "m"), thresholds=(1.0, 0.5)))
    after = softer.then(replace(WAS_SET, mode="soft", models=("m",), thresholds=(0.5, 1.0), limit_version=2))
    assert (after.state.effective_limit, after.state.life, after.state.created_at) == (6 * NANO, 1, NOON)


def test_adjustments_add_up_beside_the_limit() -> None:
    """Their sum survives a change of the limit."""
    up = given(budget, WAS_SET).when(AdjustBudget(amount=2 * NANO, reason="gift"))
    after = up.then(BudgetAdjusted(amount=2 * NANO, adjustments=2 * NANO, limit_version=2, reason="gift"))
    down = after.when(AdjustBudget(amount=-NANO, reason="back"))
    after = down.then(BudgetAdjusted(amount=-NANO, adjustments=NANO, limit_version=3, reason="back"))
    after = after.when(changed(limit=NANO)).then(BudgetLimitChanged(limit=NANO, before=5 * NANO, limit_version=4))
    assert after.state.effective_limit == 2 * NANO


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (AdjustBudget(amount=-5 * NANO - 1, reason="x"), "amount_usd"),
        (AdjustBudget(amount=MAX_LIMIT, reason="x"), "amount_usd"),
        (AdjustBudget(amount=0, reason="x"), "amount_usd"),
        (changed(limit=-1), "limit_usd"),
        (changed(limit=MAX_LIMIT + 1), "limit_usd"),
        (changed(scope=Scope(kind="user")), "scope.id"),
        (changed(scope=Scope(kind="org", id="acme")), "scope.id"),
        (changed(thresholds=(0.0,)), "thresholds"),
        (changed(thresholds=(float("nan"),)), "thresholds"),
        (changed(thresholds=tuple(n / 100 for n in range(1, 30))), "thresholds"),
        (changed(models=()), "models"),
    ],
)
def test_bad_terms_name_the_field(command: SetBudget | AdjustBudget, field: str) -> None:
    """The limit in force stays between nothing and what a gate can count."""
    given(budget, WAS_SET).when(command).then_refused("invalid_field", field)


def test_removed_it_can_only_be_set_again() -> None:
    """The new life starts without adjustments, at a higher version of the limit."""
    adjusted = BudgetAdjusted(amount=NANO, adjustments=NANO, limit_version=2, reason="gift")
    removed = given(budget, WAS_SET, adjusted).when(RemoveBudget(reason="over")).then(BudgetRemoved(reason="over"))
    removed.when(RemoveBudget()).then_nothing_happened()
    removed.when(AdjustBudget(amount=1, reason="x")).then_refused("not_found")
    later = NOON + timedelta(days=1)
    again = removed.when(changed()).then(replace(WAS_SET, life=2, limit_version=3, created_at=later))
    assert (again.state.removed, again.state.adjustments) == (False, 0)
    given(budget).when(RemoveBudget()).then_refused("not_found")


COMMANDS = st.one_of(
    st.builds(lambda n: changed(limit=n), st.integers(-1, 3)),
    st.builds(lambda n, m: changed(limit=n, mode=m), st.integers(0, 3), st.sampled_from(["hard", "soft"])),
    st.builds(AdjustBudget, amount=st.integers(-3, 3), reason=st.just("x")),
    st.builds(RemoveBudget),
)


@for_all(st.lists(COMMANDS, max_size=12))
def test_the_gate_can_rely_on_versions(commands: list[SetBudget | AdjustBudget | RemoveBudget]) -> None:
    """Within a life the limit in force changes exactly when its version grows; it is never negative."""
    state: Budget | None = None
    for command in commands:
        before = state
        try:
            events = budget.decide(command, state)
        except TollhouseError:
            continue
        for event in events:
            state = budget.evolve(state, event)
        if before is None or state is None:
            continue
        assert state.effective_limit >= 0
        assert state.limit_version >= before.limit_version
        assert state.life >= before.life
        if state.life == before.life:
            assert (state.limit_version > before.limit_version) == (state.effective_limit != before.effective_limit)
