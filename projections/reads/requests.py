"""Requests one by one: lists, and everything that the facts say about one of them.

A line is an attempt, or a refusal; attempts of one request share its id.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from domain.facts import Usage
from projections.reads.usage import Filter


class RequestLine(Struct, frozen=True, kw_only=True):
    """What became of an attempt. `hold` is what was held for it, `cost` what it costs (an open one: nothing yet); both
    nano-dollars. `count`: how many refusals the line stands for, `last` the id of the last of them."""

    org: str
    request: str
    attempt: str
    kind: int
    time: datetime
    project: str | None
    user: str | None
    key: str | None
    model: str | None
    backend: str | None
    endpoint: str
    stream: bool
    outcome: str
    code: str | None
    status: int
    price: str | None
    hold: int
    cost: int
    estimated: bool
    overrun: bool
    abandoned: bool
    usage: Usage
    latency_ms: float | None
    first_token_ms: float | None
    count: int
    last: str | None


class Place(Struct, frozen=True, array_like=True):
    """A line's place in the order of lists: newest first. `micros` since 1970."""

    micros: int
    attempt: str
    kind: int


class StoredFact(Struct, frozen=True):
    """A fact as the log has it."""

    partition: int
    offset: int
    body: bytes


class Requests(Protocol):
    """The live version of the usage view. Synchronous; any thread. Raises `Unavailable`."""

    def page(self, filter: Filter, before: Place | None, limit: int) -> Sequence[RequestLine]:
        """The newest `limit` lines, of those that come after the place `before`."""

    def stream(self, filter: Filter) -> Iterator[Sequence[RequestLine]]:
        """All of them, newest first, as of one moment, some at a time."""

    def find(self, request: str, org: str | None) -> Sequence[RequestLine]:
        """The lines of one request, in order of their attempts: by its own id or an attempt's, by the id of a refusal
        that was folded into another's line if that is the only such line. Empty if there is none."""

    def facts(self, org: str, request: str) -> Sequence[StoredFact]:
        """Every fact about a request, in the order of the log."""


def place_of(line: RequestLine) -> Place:
    """Where `line` is in lists."""
    whole = int(line.time.timestamp())
    return Place(whole * 1_000_000 + line.time.microsecond, line.attempt, line.kind)
