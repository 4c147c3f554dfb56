"""`BucketSums` over the balances view in the views file."""

from collections.abc import Mapping, Sequence

from infra.adapters.sqlite_views import ViewsFile, live_version, quoted
from projections.balances import NAME
from projections.reads.budgets import Sums

_SUMS = """
SELECT sum(consumed), sum(held), sum(estimated)
FROM json_each(?) CROSS JOIN balances_buckets_{v} ON org = ? AND budget = ? AND bucket = value
"""


class SqliteBucketSums:
    """See `projections.reads.budgets.BucketSums`. Raises `Unavailable`."""

    def __init__(self, file: ViewsFile) -> None:
        self._file = file

    def sums(self, org: str, buckets: Mapping[str, Sequence[str]]) -> Mapping[str, Sums]:
        """See `BucketSums`."""
        with self._file.reading() as db:
            version = live_version(db, NAME)
            if version is None:
                return {}
            found: dict[str, Sums] = {}
            for budget, names in buckets.items():
                row = db.execute(_SUMS.format(v=version), (quoted(names), org, budget)).fetchone()
                found[budget] = Sums(*(int(value or 0) for value in row))
            return found
