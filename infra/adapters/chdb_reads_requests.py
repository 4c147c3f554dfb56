"""Requests one by one from the usage view in the analytics engine."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from domain.facts import Usage
from infra.adapters.chdb_engine import Analytics
from infra.adapters.chdb_reads_filter import condition
from projections.reads.requests import Place, RequestLine, StoredFact
from projections.reads.usage import Filter
from projections.usage import request_of

_LINES = Path(__file__).with_suffix(".sql").read_text()
_NEWEST_FIRST = " ORDER BY time DESC, attempt DESC, kind DESC"
_BEFORE = " AND (time, attempt, kind) < (fromUnixTimestamp64Micro({micros:Int64}), {attempt:String}, {kind:UInt8})"

_OF_REQUEST = "attempt >= {request:String} AND attempt < concat({request:String}, '/') AND request = {request:String}"
"""By the key of the table: attempts are named ``<request>`` and ``<request>.2``, and ``.`` comes just before ``/``."""

_FOLDED = "outcome = 'denied' AND count > 1 AND attempt < {request:String} AND last >= {request:String}"
_FACTS = """
SELECT partition, offset, body FROM usage_facts_{v} FINAL
WHERE org = {{org:String}} AND request = {{request:String}} ORDER BY partition, offset
"""


class _Line(Struct):
    """The columns selected, by name."""

    org: str
    request: str
    attempt: str
    kind: int
    time: datetime
    project: str
    user: str
    key: str
    model: str
    backend: str
    endpoint: str
    stream: bool
    outcome: str
    code: str
    status: int
    price: str
    hold: int
    cost: int
    estimated: bool
    overrun: bool
    abandoned: bool
    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    audio_input: int
    image_input: int
    audio_output: int
    latency_ms: float
    first_token_ms: float
    count: int
    last: str

    def shown(self) -> RequestLine:
        """As it is asked for: nothing is None."""
        measured = self.outcome in ("completed", "failed", "unconfirmed")
        return RequestLine(
            org=self.org,
            request=self.request,
            attempt=self.attempt,
            kind=self.kind,
            time=self.time,
            project=self.project or None,
            user=self.user or None,
            key=self.key or None,
            model=self.model or None,
            backend=self.backend or None,
            endpoint=self.endpoint,
            stream=self.stream,
            outcome=self.outcome,
            code=self.code or None,
            status=self.status,
            price=self.price or None,
            hold=self.hold,
            cost=self.cost,
            estimated=self.estimated,
            overrun=self.overrun,
            abandoned=self.abandoned,
            usage=Usage(
                input=self.input,
                cached_input=self.cached_input,
                cache_write=self.cache_write,
                output=self.output,
                reasoning=self.reasoning,
                audio_input=self.audio_input,
                image_input=self.image_input,
                audio_output=self.audio_output,
            ),
            latency_ms=self.latency_ms if measured else None,
            first_token_ms=self.first_token_ms if self.first_token_ms >= 0 else None,
            count=self.count,
            last=self.last or None,
        )


class _Fact(Struct, array_like=True):
    partition: int
    offset: int
    body: str


class AnalyticsRequests:
    """See `projections.reads.requests.Requests`. `live` answers the version of the usage view to read. Raises
    `Unavailable`."""

    def __init__(self, analytics: Analytics, live: Callable[[], int | None]) -> None:
        self._analytics, self._live = analytics, live

    def page(self, filter: Filter, before: Place | None, limit: int) -> Sequence[RequestLine]:
        """See `Requests`."""
        where, params = condition(filter)
        if before is not None:
            where += _BEFORE
            params.update(micros=before.micros, attempt=before.attempt, kind=before.kind)
        return self._lines(where, params, f"{_NEWEST_FIRST} LIMIT {limit:d}")

    def stream(self, filter: Filter) -> Iterator[Sequence[RequestLine]]:
        """See `Requests`."""
        version = self._live()
        if version is None:
            return
        where, params = condition(filter)
        sql = _LINES.format(v=version, where=where) + _NEWEST_FIRST
        for lines in self._analytics.stream(_Line, sql, params):
            yield [line.shown() for line in lines]

    def find(self, request: str, org: str | None) -> Sequence[RequestLine]:
        """See `Requests`."""
        own = "" if org is None else " AND org = {org:String}"
        params = {"request": request_of(request), **({} if org is None else {"org": org})}
        found = self._lines(_OF_REQUEST + own, params, " ORDER BY length(attempt), attempt, kind")
        if found:
            return found
        folded = self._lines(_FOLDED + own, params, " LIMIT 2")
        return folded if len(folded) == 1 else [line for line in folded if line.last == request]

    def facts(self, org: str, request: str) -> Sequence[StoredFact]:
        """See `Requests`."""
        version = self._live()
        if version is None:
            return []
        found = self._analytics.query(_Fact, _FACTS.format(v=version), {"org": org, "request": request})
        return [StoredFact(fact.partition, fact.offset, fact.body.encode()) for fact in found]

    def _lines(self, where: str, params: dict[str, Any], order: str) -> list[RequestLine]:
        version = self._live()
        if version is None:
            return []
        sql = _LINES.format(v=version, where=where) + order
        return [line for lines in self._analytics.stream(_Line, sql, params) for line in (row.shown() for row in lines)]
