"""A gate, its clock and its place in the log, as the contract of gates handles them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from commands.gate import AdmitRequest, BudgetClaim, Gate, GateSink, Granted, RateClaim, Refused, Settled
from domain.facts import BudgetHold
from domain.fold import Attempt, Books, Bucket, State

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ORG, CAP, LIFETIME = "acme", "cap", "1.lifetime"
_NEVER = 10**15
"""Nano-dollars that no budget has."""


class WholeGate(Gate, GateSink, Protocol):
    """Both sides of a gate."""


class Clock:
    """The gate's own clock."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def cap(limit: int = 100, version: int = 1, *, hard: bool = True, budget: str = CAP) -> BudgetClaim:
    """A lifetime budget in scope."""
    return BudgetClaim(budget, (LIFETIME,), None, limit, version, hard)


def day(
    limit: int = 100, *, until: datetime, budget: str = "day", version: int = 1, bucket: str = "1.2026-11-23"
) -> BudgetClaim:
    """A budget whose only bucket leaves the window at `until`."""
    return BudgetClaim(budget, (bucket,), until, limit, version, True)


@dataclass
class House:
    """A gate with its clock, run, epoch and place in the log. Amounts are nano-dollars; one token costs one."""

    gate: WholeGate
    clock: Clock
    run: str
    epoch: int = 0
    partition: int = 0
    watermark: int = 0
    _number: int = field(default=0)

    async def open(self, books: Books | None = None, watermark: int = 0) -> None:
        """Opens the partition under the next epoch with what `books` say."""
        self.epoch += 1
        self.watermark = watermark
        await self.gate.begin(self.partition, self.run, self.epoch)
        await self.gate.finish(self.partition, self.run, self.epoch, watermark, books or Books())

    def request(self, attempt: str | None = None, budgets: Sequence[BudgetClaim] = (), **fields: Any) -> AdmitRequest:
        """A request for exactly `want` tokens (default: 10), unless `least` says that fewer will do."""
        self._number += 1
        want = fields.pop("want", 10)
        given: dict[str, Any] = {
            "partition": self.partition,
            "run": self.run,
            "epoch": self.epoch,
            "org": ORG,
            "attempt": attempt or f"req_{self._number}",
            "once": None,
            "accounted_at": self.clock(),
            "base": 0,
            "unit": 1,
            "want": want,
            "least": want,
            "budgets": tuple(budgets),
        }
        return AdmitRequest(**(given | fields))

    async def ask(self, attempt: str | None = None, *budgets: BudgetClaim, **fields: Any) -> Granted | Refused:
        return await self.gate.admit(self.request(attempt, budgets, **fields))

    async def hold(self, attempt: str, *budgets: BudgetClaim, **fields: Any) -> Granted:
        """An admission that must succeed."""
        answer = await self.ask(attempt, *(budgets or (cap(),)), **fields)
        assert isinstance(answer, Granted), answer
        return answer

    async def refuse(self, *budgets: BudgetClaim, **fields: Any) -> Refused:
        """An admission that must be refused."""
        answer = await self.ask(None, *(budgets or (cap(),)), **fields)
        assert isinstance(answer, Refused), answer
        return answer

    async def settle(self, *facts: Settled) -> None:
        """The next facts of the log."""
        assert await self.gate.settle(self.partition, self.run, self.epoch, self.watermark, facts)
        self.watermark += len(facts)

    async def seen(self, budget: str = CAP, window: tuple[str, ...] = (LIFETIME,)) -> BudgetHold:
        """A budget as the gate tells it to a request that it can only refuse."""
        claim = BudgetClaim(budget, window, None, 0, -1, True)
        return (await self.refuse(claim, base=_NEVER)).seen[0]

    async def balance(self, budget: str = CAP, window: tuple[str, ...] = (LIFETIME,)) -> tuple[int, int]:
        """(consumed, held); what unconfirmed requests hold is consumed."""
        view = await self.seen(budget, window)
        return view.consumed, view.held


def fact(type: str, attempt: str = "req", cost: int = 0, tokens: int | None = None) -> Settled:
    """A fact as settling sees it."""
    return Settled(type if type == "GateOpened" else f"Request{type}", attempt, cost, tokens)


def rate(kind: str, limit: int) -> RateClaim:
    return RateClaim(f"{ORG}/key_1/{kind}", kind, limit)


def books_of(*attempts: tuple[str, State, int], consumed: int = 0, until: datetime | None = None) -> Books:
    """The fold of attempts (id, state, hold) that all hold in one bucket."""
    key = (ORG, CAP, LIFETIME)
    bucket = Bucket(consumed, 0, 0, until)
    books = Books(buckets={key: bucket})
    for attempt, state, hold in attempts:
        live = state in (State.OPEN, State.UNCONFIRMED)
        books.attempts[attempt] = Attempt(state, NOON, hold if live else 0, (key,) if live else ())
        bucket.held += hold if state is State.OPEN else 0
        if state is State.UNCONFIRMED:
            bucket.consumed += hold
            bucket.estimated += hold
    return books
