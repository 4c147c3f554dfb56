"""The usage view: one row per attempt and one per refusal, with everything that usage, costs and request lists show.

Pure, and without state but for the epoch: each fact gives a row of its own, rows of one attempt replace each other, and
the one with the highest `version` wins. Versions are ordered as `domain.fold` moves from state to state in any log that
`docs/protocol.md` allows: ends (class 3) over unconfirmed (2) over admitted, voided and denied (1); of one class the
first in the log wins. An admission of an older epoch is only void where nothing came before it, so it is of class 1 too.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from msgspec import Struct

from domain.facts import (
    AttemptFact,
    GateOpened,
    RequestAdmitted,
    RequestCompleted,
    RequestDenied,
    RequestFailed,
    RequestUnconfirmed,
    RequestVoided,
    RequestWrittenOff,
)
from domain.ids import PLATFORM
from projections.ports import Event, Poisoned

NAME = "usage"
"""Stored format: it is part of table names."""

Outcome = Literal["open", "completed", "failed", "unconfirmed", "denied", "void", "written_off"]

_LAST = (1 << 56) - 1
NO_TIME = -1.0
"""Milliseconds of a first token that there was none of."""


class RequestRow(Struct, kw_only=True, gc=False, array_like=True):
    """A row of the table of requests, columns in order. Stored format. Money in nano-dollars: `cost` of an unconfirmed
    attempt is its hold.

    `kind` 1 is a refusal, which counts `count` requests. `time` is the accounted time.
    """

    org: str
    attempt: str
    kind: int = 0
    version: int
    partition: int
    offset: int
    request: str
    time: datetime
    project: str = ""
    user: str = ""
    key: str = ""
    model: str = ""
    backend: str = ""
    endpoint: str = ""
    stream: bool = False
    outcome: Outcome
    code: str = ""
    status: int = 0
    price: str = ""
    hold: int = 0
    cost: int = 0
    estimated: bool = False
    overrun: bool = False
    abandoned: bool = False
    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    latency_ms: float = 0.0
    first_token_ms: float = NO_TIME
    count: int = 1
    last: str = ""


class FactRow(Struct, kw_only=True, gc=False, array_like=True):
    """A row of the table of facts, columns in order: the stored bytes, where requests are looked up. Stored format."""

    org: str
    request: str
    partition: int
    offset: int
    type: str
    time: datetime
    body: str


class Rows(Struct):
    """What a batch adds. `epochs` per partition, after it."""

    requests: list[RequestRow]
    facts: list[FactRow]
    epochs: dict[int, int]


def project(events: Iterable[Event], epochs: dict[int, int]) -> Rows:
    """The rows of `events`, in order within each partition, given the epoch of each before. Raises `Poisoned`.

    Of rows that would replace each other only the winning one is in it.
    """
    best: dict[tuple[str, int], RequestRow] = {}
    facts: list[FactRow] = []
    now = dict(epochs)
    for event in events:
        try:
            facts.append(_fact(event))
            if isinstance(event.value, GateOpened):
                now[event.partition] = max(now.get(event.partition, 0), event.value.epoch)
                continue
            row = _row(event, now.get(event.partition, 0))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise Poisoned(event, error) from error
        known = best.get((row.attempt, row.kind))
        if known is None or row.version > known.version:
            best[row.attempt, row.kind] = row
    return Rows(list(best.values()), facts, now)


def request_of(attempt: str) -> str:
    """The request that an attempt belongs to."""
    return attempt.partition(".")[0]


def _fact(event: Event) -> FactRow:
    envelope, fact = event.envelope, event.value
    if isinstance(fact, GateOpened):
        org, request = PLATFORM, ""
    else:
        org, request = fact.org, request_of(fact.attempt) if isinstance(fact, RequestVoided) else fact.request
    return FactRow(
        org=org,
        request=request,
        partition=event.partition,
        offset=event.offset,
        type=envelope.type,
        time=envelope.occurred_at,
        body=event.body.decode(),
    )


def _row(event: Event, epoch: int) -> RequestRow:
    match event.value:
        case RequestCompleted() as fact:
            row = _attempt(event, fact, 3, "completed")
            _served(row, fact)
        case RequestAdmitted() as fact:
            row = _attempt(event, fact, 1, "open" if fact.epoch == epoch else "void")
            row.backend = fact.backend or ""
        case RequestDenied() as fact:
            row = _denied(event, fact)
        case RequestFailed() as fact:
            row = _attempt(event, fact, 3, "failed")
            row.code, row.status, row.backend, row.latency_ms = (
                fact.reason,
                fact.status,
                fact.backend or "",
                fact.latency_ms,
            )
        case RequestUnconfirmed() as fact:
            row = _attempt(event, fact, 2, "unconfirmed")
            row.cost, row.estimated = fact.hold, True
            row.code, row.backend, row.latency_ms = fact.reason, fact.backend or "", fact.latency_ms
        case RequestWrittenOff() as fact:
            row = _attempt(event, fact, 3, "written_off")
            row.code = fact.reason
        case RequestVoided() as fact:
            row = RequestRow(
                org=fact.org,
                attempt=fact.attempt,
                version=_version(1, event.offset),
                partition=event.partition,
                offset=event.offset,
                request=request_of(fact.attempt),
                time=event.envelope.occurred_at,
                outcome="void",
            )
        case other:
            raise TypeError(f"no fact: {type(other).__name__}")
    return row


def _version(rank: int, offset: int) -> int:
    return rank << 56 | (_LAST - offset)


def _attempt(event: Event, fact: AttemptFact, rank: int, outcome: Outcome) -> RequestRow:
    return RequestRow(
        org=fact.org,
        attempt=fact.attempt,
        version=rank << 56 | (_LAST - event.offset),
        partition=event.partition,
        offset=event.offset,
        request=fact.request,
        time=fact.accounted_at,
        project=fact.project,
        user=fact.user or "",
        key=fact.key,
        model=fact.model,
        endpoint=fact.endpoint,
        stream=fact.stream,
        outcome=outcome,
        price=fact.price or "",
        hold=fact.hold,
    )


def _served(row: RequestRow, fact: RequestCompleted) -> None:
    usage = fact.usage
    row.backend, row.status, row.cost = fact.backend or "", fact.status, fact.cost
    row.estimated, row.overrun, row.abandoned = fact.estimated, fact.overrun, fact.abandoned
    row.input, row.cached_input, row.cache_write = usage.input, usage.cached_input, usage.cache_write
    row.output, row.reasoning = usage.output, usage.reasoning
    row.latency_ms = fact.latency_ms
    if fact.first_token_ms is not None:
        row.first_token_ms = fact.first_token_ms


def _denied(event: Event, fact: RequestDenied) -> RequestRow:
    return RequestRow(
        org=fact.org,
        attempt=fact.request,
        kind=1,
        version=_version(1, event.offset),
        partition=event.partition,
        offset=event.offset,
        request=fact.request,
        time=fact.accounted_at,
        project=fact.project,
        user=fact.user or "",
        key=fact.key,
        model=fact.model or "",
        endpoint=fact.endpoint,
        outcome="denied",
        code=fact.code,
        status=fact.status,
        count=fact.count,
        last=fact.last or "",
    )
