"""Usage and cost, added up: what can be asked of the usage view, and the rows it answers.

A request belongs to the time of its admission. What counts as a request is one that was served or may have been: completed
and unconfirmed. Sums are exact; money is nano-dollars.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from domain.facts import Tokens
from projections.reads.buckets import Width

Dimension = Literal["project", "user", "key", "model", "backend", "outcome"]

DIMENSIONS: tuple[Dimension, ...] = ("project", "user", "key", "model", "backend", "outcome")

Kind = Literal["any", "completions", "embeddings"]


class Filter(Struct, frozen=True, kw_only=True):
    """Which requests: those of `org` accounted in [`since`, `until`) that have, in each dimension named, one of the
    values."""

    org: str
    since: datetime | None = None
    until: datetime | None = None
    only: tuple[tuple[Dimension, tuple[str, ...]], ...] = ()
    kind: Kind = "any"
    code: str | None = None


class UsageQuery(Struct, frozen=True, kw_only=True):
    """What to add up, per bucket of `width` in the IANA `zone` and per group."""

    filter: Filter
    width: Width = "day"
    zone: str = "UTC"
    group_by: tuple[Dimension, ...] = ()


class Percentiles(Struct, frozen=True):
    """Milliseconds; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


class Totals(Tokens, frozen=True, kw_only=True):
    """Sums. `requests` are the completed and the unconfirmed; `estimated` is the part of `cost` that is holds of unconfirmed
    requests."""

    requests: int = 0
    denied: int = 0
    failed: int = 0
    unconfirmed: int = 0
    open: int = 0
    written_off: int = 0
    void: int = 0
    cost: int = 0
    estimated: int = 0


class UsageRow(Struct, frozen=True, kw_only=True):
    """One bucket [`start`, `end`) and group. `group` has a value per dimension asked for, None where a request has none."""

    start: datetime | None
    end: datetime | None
    group: tuple[str | None, ...]
    totals: Totals
    latency_ms: Percentiles
    first_token_ms: Percentiles


class Usages(Protocol):
    """The live version of the usage view. Synchronous; any thread. Raises `Unavailable`."""

    def totals(self, query: UsageQuery) -> Sequence[UsageRow]:
        """Rows by start and group, where there is anything to say; without groups and buckets exactly one."""
