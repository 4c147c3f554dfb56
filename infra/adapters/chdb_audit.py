"""The audit view in the analytics engine. Rows are made by `projections.audit`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from infra.adapters.chdb_engine import Analytics
from infra.adapters.row_views import Catalog
from projections.audit import GENESIS, NAME, AuditRow, ChainCheck, Link, Tail, entry, project, verify
from projections.directory import Entry
from projections.ports import CONTROL, Event, Mark

_SCHEMA = Path(__file__).with_suffix(".sql").read_text()
_PAGE = 10_000


class _Link(Struct, array_like=True):
    number: int
    hash: str


class _Known(Struct, array_like=True):
    stream: str
    version: int
    state: str


class AuditView:
    """`AnalyticsView` of audit. Knows the end of the chain and how much of the log is in."""

    name = NAME
    looks_back = True
    topic = CONTROL

    def __init__(self) -> None:
        self._tail = Tail()
        self._next = Tail()
        self._end = 0
        self._next_end = 0

    def tables(self, version: int) -> Sequence[str]:
        """See `AnalyticsView`."""
        return [f"audit_entries_{version}"]

    def schema(self, version: int) -> Sequence[str]:
        """See `AnalyticsView`."""
        return [_SCHEMA.format(v=version)]

    def resume(self, analytics: Analytics, version: int, marks: Mapping[int, Mark]) -> None:
        """See `AnalyticsView`."""
        self._end = marks.get(0, Mark()).offset
        last = analytics.query(
            _Link,
            f"SELECT number, hash FROM audit_entries_{version} FINAL WHERE offset < {{end:UInt64}}"
            " ORDER BY number DESC LIMIT 1",
            {"end": self._end},
        )
        self._tail = Tail(last[0].number, last[0].hash) if last else Tail(0, GENESIS)

    def rows(self, analytics: Analytics, version: int, events: Sequence[Event]) -> Mapping[str, list[Any]]:
        """See `AnalyticsView`."""
        rows = project(events, self._tail, self._states(analytics, version, events)) if events else []
        self._next = Tail(rows[-1].number, rows[-1].hash) if rows else self._tail
        self._next_end = rows[-1].offset + 1 if rows else self._end
        return {f"audit_entries_{version}": rows}

    def written(self) -> None:
        """See `AnalyticsView`."""
        self._tail, self._end = self._next, self._next_end

    def replayed(self, analytics: Analytics, version: int, event: Event) -> Mapping[str, list[AuditRow]]:
        """See `AnalyticsView`. The entry goes to the end of the chain."""
        sql = f"SELECT count() FROM audit_entries_{version} WHERE offset = {{offset:UInt64}}"
        if int(analytics.value(sql, {"offset": event.offset})):
            return {}
        rows = project([event], self._tail, self._states(analytics, version, [event]))
        return {f"audit_entries_{version}": rows}

    def _states(self, analytics: Analytics, version: int, events: Sequence[Event]) -> dict[str, Entry]:
        """The streams of `events` as the entries below the watermark leave them."""
        streams = sorted({event.envelope.stream for event in events})
        known = analytics.query(
            _Known,
            f"SELECT stream, max(e.version), argMax(after, e.version) FROM audit_entries_{version} AS e FINAL"
            " WHERE stream IN {streams:Array(String)} AND offset < {end:UInt64} GROUP BY stream",
            {"streams": streams, "end": self._end},
        )
        return {row.stream: entry(row.stream, row.version, row.state.encode()) for row in known}


class AuditChain:
    """Checks the hash chain of the live version. Raises `Unavailable`."""

    def __init__(self, analytics: Analytics, catalog: Catalog) -> None:
        self._analytics, self._catalog = analytics, catalog

    def verify(self) -> ChainCheck:
        """Reads every entry and recomputes its hash."""
        version = self._catalog.live(NAME)
        return verify(() if version is None else self._links(version))

    def _links(self, version: int) -> Iterator[Link]:
        after = 0
        while page := self._analytics.query(
            Link,
            f"SELECT number, body, previous, hash FROM audit_entries_{version} FINAL WHERE number > {{after:UInt64}}"
            f" ORDER BY number LIMIT {_PAGE}",
            {"after": after},
        ):
            yield from page
            after = page[-1].number
