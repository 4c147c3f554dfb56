"""The audit view in the analytics engine, entry by entry."""

from collections.abc import Callable, Sequence
from typing import Any

from infra.adapters.chdb_audit import AuditChain
from infra.adapters.chdb_engine import Analytics
from projections.audit import ChainCheck
from projections.reads.audit import Deed

_ENTRIES = """
SELECT number, position, id, org, stream, version, type, time, actor, command_id, correlation_id, before, after, body, hash
FROM audit_entries_{v} FINAL WHERE {where} ORDER BY {order} LIMIT {limit:d}
"""


class _Entry(Deed, frozen=True, kw_only=True, array_like=True):
    """The columns selected, in order."""


class AnalyticsAuditTrail:
    """See `projections.reads.audit.AuditTrail`. `live` answers the version of the audit view to read. Raises
    `Unavailable`."""

    def __init__(self, analytics: Analytics, live: Callable[[], int | None], chain: AuditChain) -> None:
        self._analytics, self._live, self._chain = analytics, live, chain

    def page(self, org: str, before: int | None, limit: int) -> Sequence[Deed]:
        """See `AuditTrail`."""
        where, params = "org = {org:String}", dict[str, Any](org=org)
        if before is not None:
            where += " AND number < {before:UInt64}"
            params["before"] = before
        return self._entries(where, params, "number DESC", limit)

    def after(self, org: str | None, position: int, limit: int) -> Sequence[Deed]:
        """See `AuditTrail`."""
        where, params = "position > {position:UInt64}", dict[str, Any](position=position)
        if org is not None:
            where += " AND org = {org:String}"
            params["org"] = org
        return self._entries(where, params, "position", limit)

    def find(self, event: str) -> Deed | None:
        """See `AuditTrail`."""
        found = self._entries("id = {id:String}", {"id": event}, "number", 1)
        return found[0] if found else None

    def verify(self) -> ChainCheck:
        """See `AuditTrail`."""
        return self._chain.verify()

    def _entries(self, where: str, params: dict[str, Any], order: str, limit: int) -> list[Deed]:
        version = self._live()
        if version is None:
            return []
        sql = _ENTRIES.format(v=version, where=where, order=order, limit=limit)
        return list(self._analytics.query(_Entry, sql, params))
