"""Sums over the usage view in the analytics engine."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from infra.adapters.chdb_engine import Analytics
from infra.adapters.chdb_reads_filter import condition
from projections.reads.buckets import Grid, grid
from projections.reads.usage import Percentiles, Totals, UsageQuery, UsageRow

_SUMS = Path(__file__).with_suffix(".sql").read_text()
_SPAN = "SELECT count(), toUnixTimestamp(min(time)), toUnixTimestamp(max(time)) FROM usage_requests_{v} WHERE {where}"
_SECOND = "toInt64(toUnixTimestamp(time))"
_NOTHING = (None, None, None)


class _Row(Struct, array_like=True):
    """The columns selected, in order."""

    bucket: int
    group: list[str]
    requests: int
    denied: int
    failed: int
    unconfirmed: int
    open: int
    written_off: int
    void: int
    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    audio_input: int
    image_input: int
    audio_output: int
    cost: int
    estimated: int
    latency_ms: list[float]
    first_token_ms: list[float]


class _Span(Struct, array_like=True):
    rows: int
    first: int
    last: int


class AnalyticsUsages:
    """See `projections.reads.usage.Usages`. `live` answers the version of the usage view to read. Raises `Unavailable`."""

    def __init__(self, analytics: Analytics, live: Callable[[], int | None]) -> None:
        self._analytics, self._live = analytics, live

    def totals(self, query: UsageQuery) -> Sequence[UsageRow]:
        """See `Usages`."""
        version = self._live()
        rows = [] if version is None else self._rows(version, query)
        if not rows and query.width == "all" and not query.group_by:
            nothing = UsageRow(
                start=query.filter.since,
                end=query.filter.until,
                group=(),
                totals=Totals(),
                latency_ms=Percentiles(*_NOTHING),
                first_token_ms=Percentiles(*_NOTHING),
            )
            return [nothing]
        return rows

    def _rows(self, version: int, query: UsageQuery) -> list[UsageRow]:
        where, params = condition(query.filter)
        [span] = self._analytics.query(_Span, _SPAN.format(v=version, where=where), params)
        if not span.rows:
            return []
        buckets = grid(query.width, query.zone, span.first, span.last)
        groups = ", ".join(f"toString({name})" for name in query.group_by)
        sql = _SUMS.format(v=version, where=where, bucket=_bucket(buckets), groups=f"CAST([{groups}], 'Array(String)')")
        return _shown(self._analytics.query(_Row, sql, params), query, buckets)


def _bucket(buckets: Grid) -> str:
    """The expression for the start of a row's bucket."""
    if buckets.starts:
        return f"roundDown({_SECOND}, {list(buckets.starts)})"
    if not buckets.phases:
        return "toInt64(0)"
    cases = ""
    first, *later = buckets.phases
    for phase in reversed(later):
        start = f"greatest({_SECOND} - ({_SECOND} + {phase.offset}) % {phase.width}, {phase.since})"
        cases += f"{_SECOND} >= {phase.since}, {start}, "
    otherwise = f"{_SECOND} - ({_SECOND} + {first.offset}) % {first.width}"
    return f"multiIf({cases}{otherwise})" if cases else otherwise


def _shown(rows: Sequence[_Row], query: UsageQuery, buckets: Grid) -> list[UsageRow]:
    since, until = query.filter.since, query.filter.until
    ends = buckets.ends()
    shown = []
    for row in rows:
        start, end = since, until
        if query.width != "all":
            last = ends[row.bucket] if ends else buckets.end(row.bucket)
            start = _latest(_moment(row.bucket), since)
            end = _moment(last) if until is None else min(_moment(last), until)
        shown.append(
            UsageRow(
                start=start,
                end=end,
                group=tuple(value or None for value in row.group),
                totals=_totals(row),
                latency_ms=Percentiles(*(row.latency_ms or _NOTHING)),
                first_token_ms=Percentiles(*(row.first_token_ms or _NOTHING)),
            )
        )
    return shown


def _totals(row: _Row) -> Totals:
    fields: dict[str, Any] = {name: getattr(row, name) for name in Totals.__struct_fields__}
    return Totals(**fields)


def _latest(moment: datetime, other: datetime | None) -> datetime:
    return moment if other is None else max(moment, other)


def _moment(second: int | None) -> datetime:
    assert second is not None  # only where one bucket holds everything has none an end
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
