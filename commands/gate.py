"""The gate: what holds money and counts rates before a call leaves, as the request path and what settles see it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from domain.facts import BudgetHold
from domain.fold import Books


class BudgetClaim(Struct, frozen=True):
    """One budget in scope of an admission: the window's buckets, of which the last takes the hold."""

    budget: str
    window: tuple[str, ...]
    until: datetime | None
    limit: int
    version: int
    hard: bool


class RateClaim(Struct, frozen=True):
    """One rate limit in scope: `kind` is ``requests``, ``tokens`` (both per 60 s) or ``concurrent``. Where several use it
    together, each has a fair share of it; `sharer` is who asks."""

    key: str
    kind: str
    limit: int
    sharer: str | None = None


class AdmitRequest(Struct, frozen=True):
    """What `Gate.admit` decides on; see `docs/protocol.md`. Money in nano-dollars, `unit` per token of output cap."""

    partition: int
    run: str
    epoch: int
    org: str
    attempt: str
    once: str | None
    accounted_at: datetime
    base: int
    unit: int
    want: int
    least: int
    budgets: tuple[BudgetClaim, ...]
    rates: tuple[RateClaim, ...] = ()
    tokens: int = 0


class Granted(Struct, frozen=True):
    """Held. `hold` in each budget; `grant` tokens of output cap; `seen` the budgets as they were before the hold."""

    hold: int
    grant: int
    seen: tuple[BudgetHold, ...]
    rates: tuple[tuple[RateClaim, int, float], ...] = ()
    """Per rate claim: what remains, and seconds until it is whole again."""


class Refused(Struct, frozen=True):
    """Nothing was held. `code`: ``insufficient_quota``, ``budget_busy``, ``rate_limit_exceeded``, ``duplicate_request``,
    ``gate_unavailable``. `budget` names the one that refused, `first` and `outcome` the request an Idempotency-Key was
    used for; `retry_after` in seconds where waiting can help: a rate limit without it is one that this request can never pass."""

    code: str
    seen: tuple[BudgetHold, ...] = ()
    budget: str | None = None
    first: str | None = None
    outcome: str | None = None
    retry_after: float | None = None
    rate: RateClaim | None = None
    rates: tuple[tuple[RateClaim, int, float], ...] = ()


class OpenHold(Struct, frozen=True):
    """A hold of the gate whose admission is not known to be in the log."""

    partition: int
    org: str
    attempt: str


class Gate(Protocol):
    """The write side of admission: one atomic check-and-hold over all budgets and rate limits in scope."""

    async def admit(self, request: AdmitRequest) -> Granted | Refused:
        """All holds or none. Idempotent by attempt id."""

    def capture(self, partition: int, attempt: str, actual: int, tokens: int | None = None) -> None:
        """Shrinks a hold to what was charged, in any epoch; only ever after the completion's acknowledgement. Its place among
        those under way is free, and limits on tokens count `tokens` of it (None: what was asked for)."""

    async def expired(self, before: datetime) -> Sequence[OpenHold]:
        """Unlogged holds admitted before `before`. Releases none."""

    async def run(self) -> str:
        """The identity of the gate's memory: another one means that everything in it was lost."""

    async def begin(self, partition: int, run: str, epoch: int) -> None:
        """Empties the partition for `epoch` and leaves it closed. Raises `Conflict` for an epoch not above its own."""

    async def finish(self, partition: int, run: str, epoch: int, watermark: int, books: Books) -> None:
        """Loads `books` (the fold of the facts below `watermark`) and opens the partition."""


class Settled(Struct, frozen=True):
    """What settling needs of a fact: its type, the attempt it is about, and a completion's cost and tokens."""

    type: str
    attempt: str = ""
    cost: int = 0
    tokens: int | None = None


class GateSink(Protocol):
    """The gate's settling: facts end holds. Declared here because opening a gate and settling it are one protocol."""

    async def settle(self, partition: int, run: str, epoch: int, start: int, facts: Sequence[Settled]) -> bool:
        """Applies consecutive facts from offset `start` if the watermark is `start`; False (nothing done) if it is not."""

    async def watermark(self, partition: int) -> int | None:
        """The next offset to settle; None while the partition is closed."""
