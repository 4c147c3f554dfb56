"""Which soft budgets are past their limit, as admissions show it."""

from commands.gate import BudgetClaim
from commands.soft_budgets import SoftBudgets
from domain.facts import BudgetHold, Mode


def seen(
    consumed: int, *, bucket: str = "1.2026-11", version: int = 1, mode: Mode = "soft", limit: int = 100
) -> BudgetHold:
    return BudgetHold(
        budget="cap",
        bucket=bucket,
        until=None,
        limit=limit,
        limit_version=version,
        mode=mode,
        consumed=consumed,
        held=50,
    )


def claim(*, bucket: str = "1.2026-11", version: int = 1, hard: bool = False) -> BudgetClaim:
    return BudgetClaim("cap", ("1.2026-10", bucket), None, 100, version, hard)


def test_at_its_limit_a_budget_is_past_it() -> None:
    """By what is consumed: what is held may come back."""
    budgets = SoftBudgets()
    budgets.saw("acme", [seen(99)])
    assert not budgets.past("acme", [claim()])
    budgets.saw("acme", [seen(100)])
    assert budgets.past("acme", [claim()])
    assert budgets.past("acme", [claim(hard=True), claim()])
    budgets.saw("acme", [seen(60)])
    assert not budgets.past("acme", [claim()])


def test_another_organization_bucket_or_limit_is_another_matter() -> None:
    """A new period starts at zero, and a new limit has to be passed anew."""
    budgets = SoftBudgets()
    budgets.saw("acme", [seen(100)])
    assert not budgets.past("other", [claim()])
    assert not budgets.past("acme", [claim(bucket="1.2026-12")])
    assert not budgets.past("acme", [claim(version=2)])
    assert not budgets.past("acme", [])


def test_a_hard_budget_refuses_by_itself() -> None:
    """It is none of this."""
    budgets = SoftBudgets()
    budgets.saw("acme", [seen(100, mode="hard")])
    assert not budgets.past("acme", [claim(hard=True)])
