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

_SHOWN = (
    "request",
    "attempt",
    "org",
    "project",
    "user",
    "key",
    "model",
    "endpoint",
    "stream",
    "accounted_at",
    "price",
    "hold",
)
_SERVED = ("usage", "cost", "status", "estimated", "overrun", "abandoned", "latency_ms", "first_token_ms")

LOOKS = {
    RequestAdmitted: (*_SHOWN, "backend", "epoch"),
    RequestCompleted: (*_SHOWN, "backend", *_SERVED),
    RequestDenied: (
        *("request", "org", "project", "user", "key", "model", "endpoint", "accounted_at", "price"),
        *("status", "code", "count", "last"),
    ),
}
"""What it looks at in facts."""

Outcome = Literal["open", "completed", "failed", "unconfirmed", "denied", "void", "written_off"]

_LAST = (1 << 56) - 1
_RANKS = {
    "RequestAdmitted": 1,
    "RequestVoided": 1,
    "RequestDenied": 1,
    "RequestUnconfirmed": 2,
    "RequestCompleted": 3,
    "RequestFailed": 3,
    "RequestWrittenOff": 3,
}
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
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0


class FactRow(Struct, gc=False, array_like=True):
    """A row of the table of facts, columns in order: the stored bytes, where requests are looked up. Stored format."""

    org: str
    request: str
    partition: int
    offset: int
    type: str
    time: datetime
    body: bytes


class Rows(Struct):
    """What a batch adds. `epochs` per partition, after it."""

    requests: list[RequestRow]
    facts: list[FactRow]
    epochs: dict[int, int]


def project(events: Iterable[Event], epochs: dict[int, int]) -> Rows:
    """The rows of `events`, in order within each partition, given the epoch of each before. Raises `Poisoned`.

    Of rows that would replace each other only the winning one is in it.
    """
    best: dict[tuple[str, int], tuple[int, Event, int]] = {}
    facts: list[FactRow] = []
    now = dict(epochs)
    for event in events:
        try:
            facts.append(_fact(event))
            fact = event.value
            if isinstance(fact, GateOpened):
                now[event.partition] = max(now.get(event.partition, 0), fact.epoch)
                continue
            key = (fact.request, 1) if isinstance(fact, RequestDenied) else (fact.attempt, 0)
            version = _RANKS[event.envelope.type] << 56 | (_LAST - event.offset)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise Poisoned(event, error) from error
        known = best.get(key)
        if known is None or version > known[0]:
            best[key] = (version, event, now.get(event.partition, 0))
    return Rows([_row(version, event, epoch) for version, event, epoch in best.values()], facts, now)


def request_of(attempt: str) -> str:
    """The request that an attempt belongs to."""
    return attempt.partition(".")[0]


def _fact(event: Event) -> FactRow:
    envelope, fact = event.envelope, event.value
    if isinstance(fact, GateOpened):
        org, request = PLATFORM, ""
    else:
        org, request = fact.org, request_of(fact.attempt) if isinstance(fact, RequestVoided) else fact.request
    if not event.body.isascii():
        event.body.decode()
    return FactRow(org, request, event.partition, event.offset, envelope.type, envelope.occurred_at, event.body)


def _row(version: int, event: Event, epoch: int) -> RequestRow:
    fact = event.value
    if isinstance(fact, RequestDenied):
        return _denied(version, event, fact)
    if isinstance(fact, RequestVoided):
        return _voided(version, event, fact)
    row = _attempt(version, event, fact)
    match fact:
        case RequestCompleted():
            _served(row, fact)
        case RequestAdmitted():
            row.outcome = "open" if fact.epoch == epoch else "void"
        case RequestFailed():
            row.outcome, row.code, row.status = "failed", fact.reason, fact.status
            row.latency_ms = fact.latency_ms
        case RequestUnconfirmed():
            row.outcome, row.code, row.cost, row.estimated = "unconfirmed", fact.reason, fact.hold, True
            row.latency_ms = fact.latency_ms
        case RequestWrittenOff():
            row.outcome, row.code = "written_off", fact.reason
    return row


def _attempt(version: int, event: Event, fact: AttemptFact) -> RequestRow:
    return RequestRow(
        org=fact.org,
        attempt=fact.attempt,
        version=version,
        partition=event.partition,
        offset=event.offset,
        request=fact.request,
        time=fact.accounted_at,
        project=fact.project,
        user=fact.user or "",
        key=fact.key,
        model=fact.model,
        backend=getattr(fact, "backend", None) or "",
        endpoint=fact.endpoint,
        stream=fact.stream,
        outcome="completed",
        price=fact.price or "",
        hold=fact.hold,
    )


def _voided(version: int, event: Event, fact: RequestVoided) -> RequestRow:
    return RequestRow(
        org=fact.org,
        attempt=fact.attempt,
        version=version,
        partition=event.partition,
        offset=event.offset,
        request=request_of(fact.attempt),
        time=event.envelope.occurred_at,
        outcome="void",
    )


def _served(row: RequestRow, fact: RequestCompleted) -> None:
    usage = fact.usage
    row.status, row.cost = fact.status, fact.cost
    row.estimated, row.overrun, row.abandoned = fact.estimated, fact.overrun, fact.abandoned
    row.input, row.cached_input, row.cache_write = usage.input, usage.cached_input, usage.cache_write
    row.output, row.reasoning = usage.output, usage.reasoning
    row.audio_input, row.image_input, row.audio_output = usage.audio_input, usage.image_input, usage.audio_output
    row.latency_ms = fact.latency_ms
    if fact.first_token_ms is not None:
        row.first_token_ms = fact.first_token_ms


def _denied(version: int, event: Event, fact: RequestDenied) -> RequestRow:
    return RequestRow(
        org=fact.org,
        attempt=fact.request,
        kind=1,
        version=version,
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
        price=fact.price or "",
        count=fact.count,
        last=fact.last or "",
    )
