"""`BucketSums` over the balances view in rows."""

from collections.abc import Mapping, Sequence

from infra.adapters.row_views import Rows, listed, live_version
from projections.balances import NAME
from projections.reads.budgets import Sums

_SUMS = """
SELECT sum(consumed), sum(held), sum(estimated)
FROM balances_buckets_{v} WHERE org = ? AND budget = ? AND bucket IN (SELECT value ->> 0 FROM json_each(?))
"""


class RowBucketSums:
    """See `projections.reads.budgets.BucketSums`. Raises `Unavailable`."""

    def __init__(self, file: Rows) -> None:
        self._file = file

    def sums(self, org: str, buckets: Mapping[str, Sequence[str]]) -> Mapping[str, Sums]:
        """See `BucketSums`."""
        with self._file.reading() as db:
            version = live_version(db, NAME)
            if version is None:
                return {}
            found: dict[str, Sums] = {}
            for budget, names in buckets.items():
                row = db.execute(_SUMS.format(v=version), (org, budget, listed(names))).fetchone()
                found[budget] = Sums(*(int(value or 0) for value in row))
            return found
