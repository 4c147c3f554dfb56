"""Stored facts in log order, from the usage view in the analytics engine."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from infra.adapters.chdb_engine import Analytics
from projections.reads.events import LoggedFact

_FACTS = """
SELECT partition, offset, time, body FROM usage_facts_{v} FINAL WHERE {where} ORDER BY partition, offset LIMIT {limit:d}
"""


class _Fact(Struct, array_like=True):
    partition: int
    offset: int
    time: datetime
    body: str


class AnalyticsFacts:
    """See `projections.reads.events.Facts`. `live` answers the version of the usage view to read. Raises `Unavailable`."""

    def __init__(self, analytics: Analytics, live: Callable[[], int | None]) -> None:
        self._analytics, self._live = analytics, live

    def after(self, org: str | None, offsets: Mapping[int, int], limit: int) -> Sequence[LoggedFact]:
        """See `Facts`."""
        params: dict[str, Any] = {}
        parts = [f"(partition = {p:d} AND offset >= {offset:d})" for p, offset in offsets.items()]
        where = f"({' OR '.join(parts)})"
        if org is not None:
            where += " AND org = {org:String}"
            params["org"] = org
        return self._select(where, params, limit)

    def find_event(self, event: str) -> LoggedFact | None:
        """See `Facts`."""
        found = self._select("JSONExtractString(body, 'id') = {id:String}", {"id": event}, 1)
        return found[0] if found else None

    def _select(self, where: str, params: dict[str, Any], limit: int) -> list[LoggedFact]:
        version = self._live()
        if version is None:
            return []
        rows = self._analytics.query(_Fact, _FACTS.format(v=version, where=where, limit=limit), params)
        return [LoggedFact(row.partition, row.offset, row.time, row.body) for row in rows]
