"""A budget with its sums: what remains, and where it is heading."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.budget import Budget, Scope
from domain.period import Period, window
from projections.directory import Entry
from projections.reads.budgets import BudgetStanding, Sums, buckets_of, standing

DAY = datetime(2026, 11, 5, tzinfo=UTC)


def at(moment: datetime, period: Period, sums: Sums, created_at: datetime = DAY - timedelta(days=90)) -> BudgetStanding:
    terms = Budget(
        scope=Scope(kind="org"),
        limit=1000,
        limit_version=1,
        currency="USD",
        period=period,
        mode="soft",
        models=None,
        thresholds=(1.0,),
        life=3,
        created_at=created_at,
        adjustments=-200,
    )
    entry = Entry(
        stream="acme/budget/cap",
        kind="budget",
        org="acme",
        id="cap",
        version=1,
        state=b"",
        removed=False,
        created_at="",
        changed_at="",
    )
    return standing(entry, terms, window(period, moment), sums, moment)


def test_what_remains_is_the_limit_in_force_less_consumed_and_held() -> None:
    """Below zero where a soft budget is passed."""
    assert at(DAY, Period(kind="day"), Sums(500, 100)).remaining == 200
    assert at(DAY, Period(kind="day"), Sums(900, 100)).remaining == -200


@pytest.mark.parametrize(
    ("passed", "created", "forecast"),
    [
        (timedelta(hours=6), -90 * 24, 400),  # a quarter of the day: four times as much at its end
        (timedelta(hours=12), -90 * 24, 200),
        (timedelta(hours=12), 6, 300),  # made six hours ago: the twelve to come cost twice as much again
        (timedelta(0), -90 * 24, None),
    ],
)
def test_spending_goes_on_as_it_did(passed: timedelta, created: int, forecast: int | None) -> None:
    """Linear over the window, or over the budget's life in it; nothing is said before any time has passed."""
    found = at(DAY + passed, Period(kind="day"), Sums(100), DAY + timedelta(hours=created))
    assert found.forecast == forecast


@pytest.mark.parametrize("period", [Period(kind="lifetime"), Period(kind="rolling", days=7)])
def test_a_window_without_an_end_to_come_has_no_forecast(period: Period) -> None:
    """A lifetime never ends, and a rolling window always has just ended."""
    assert at(DAY + timedelta(hours=6), period, Sums(100)).forecast is None


def test_buckets_are_those_of_the_budgets_life() -> None:
    """A budget set again starts at zero."""
    terms = at(DAY, Period(kind="rolling", days=2), Sums()).terms
    assert buckets_of(terms, window(terms.period, DAY)) == ["3.2026-11-04", "3.2026-11-05"]
