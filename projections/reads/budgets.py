"""Budgets with their balances: terms from the directory, sums from the balances view, joined for the window at a moment."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from domain.budget import KIND, Budget
from domain.period import Window, window
from projections.directory import Entry
from projections.reads.directory import Directory


class Sums(Struct, frozen=True):
    """Nano-dollars: `estimated` is the part of `consumed` that is holds of unconfirmed requests."""

    consumed: int = 0
    held: int = 0
    estimated: int = 0


class BucketSums(Protocol):
    """The live version of the balances view. Synchronous; any thread. Raises `Unavailable`."""

    def sums(self, org: str, buckets: Mapping[str, Sequence[str]]) -> Mapping[str, Sums]:
        """Per budget the sums over its `buckets`, all in one snapshot; a bucket nothing was held in is zero."""


class BudgetStanding(Struct, frozen=True, kw_only=True):
    """A budget at a moment. `period_end` is None for a lifetime; `forecast` what the window will have consumed at its end
    if spending goes on as it did, None where a window has no end to come or nothing can be said yet."""

    id: str
    org: str
    version: int
    terms: Budget
    sums: Sums
    period_start: datetime | None
    period_end: datetime | None
    forecast: int | None

    @property
    def limit(self) -> int:
        """The limit in force, nano-dollars."""
        return self.terms.effective_limit

    @property
    def remaining(self) -> int:
        """What is neither consumed nor held; negative where the limit is passed."""
        return self.limit - self.sums.consumed - self.sums.held


class Budgets:
    """Budgets of an organization, as of now."""

    def __init__(self, directory: Directory, balances: BucketSums) -> None:
        self._directory, self._balances = directory, balances

    def get(self, org: str, budget: str, moment: datetime) -> BudgetStanding | None:
        """One budget, None if there is none (any more)."""
        entry = self._directory.get(f"{org}/{KIND}/{budget}")
        if entry is None or entry.removed:
            return None
        return self._at(org, [entry], moment)[0]

    def page(self, org: str, after: str, limit: int, moment: datetime) -> Sequence[BudgetStanding]:
        """At most `limit` budgets beyond the id `after`, by id."""
        return self._at(org, self._directory.list(org, KIND, after, limit, removed=False), moment)

    def _at(self, org: str, entries: Sequence[Entry], moment: datetime) -> list[BudgetStanding]:
        terms: list[Budget] = [entry.value() for entry in entries]
        windows = [window(budget.period, moment) for budget in terms]
        wanted = {
            entry.id: buckets_of(budget, span) for entry, budget, span in zip(entries, terms, windows, strict=True)
        }
        sums = self._balances.sums(org, wanted)
        return [
            standing(entry, budget, span, sums.get(entry.id, Sums()), moment)
            for entry, budget, span in zip(entries, terms, windows, strict=True)
        ]


def buckets_of(budget: Budget, span: Window) -> list[str]:
    """The buckets that `span` sums, as holds name them."""
    return [f"{budget.life}.{bucket}" for bucket in span.buckets]


def standing(entry: Entry, budget: Budget, span: Window, sums: Sums, moment: datetime) -> BudgetStanding:
    """The budget `entry` with its sums over `span`."""
    return BudgetStanding(
        id=entry.id,
        org=entry.org,
        version=entry.version,
        terms=budget,
        sums=sums,
        period_start=span.start,
        period_end=span.end,
        forecast=None if budget.period.kind == "rolling" else _forecast(budget, span, sums.consumed, moment),
    )


def _forecast(budget: Budget, span: Window, consumed: int, moment: datetime) -> int | None:
    """Linear: what was consumed since the window, or the budget in it, began, carried on to the end."""
    if span.start is None or span.end is None:
        return None
    passed = (moment - max(span.start, budget.created_at)) // timedelta(microseconds=1)
    left = (span.end - moment) // timedelta(microseconds=1)
    return None if passed <= 0 else consumed + consumed * left // passed
