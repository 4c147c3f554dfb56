"""Which soft budgets are past their limit, as far as admissions of this gateway have shown: so that requests in their scope can
be sent to a cheaper model. Nothing is refused by it, so being a request late does no harm.
"""

from collections.abc import Iterable

from commands.gate import BudgetClaim
from domain.facts import BudgetHold

_MOST = 100_000


class SoftBudgets:
    """One per gateway. A budget is past its limit in a bucket, until its limit is changed or the bucket is over."""

    def __init__(self) -> None:
        self._past: dict[tuple[str, str, str], int] = {}
        """By organization, budget and bucket: the version of the limit that was passed."""

    def saw(self, org: str, holds: Iterable[BudgetHold]) -> None:
        """Takes in what an admission of `org` showed of the budgets in its scope."""
        for hold in holds:
            if hold.mode == "soft":
                key = (org, hold.budget, hold.bucket)
                if hold.consumed >= hold.limit:
                    if len(self._past) >= _MOST:  # buckets that are over
                        self._past.clear()
                    self._past[key] = hold.limit_version
                else:
                    self._past.pop(key, None)

    def past(self, org: str, claims: Iterable[BudgetClaim]) -> bool:
        """Whether one of these budgets is past its limit."""
        past = self._past
        return any(
            not claim.hard and past.get((org, claim.budget, claim.window[-1])) == claim.version for claim in claims
        )
