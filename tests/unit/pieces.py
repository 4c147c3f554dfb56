"""The pieces around the use cases of one gateway: who asks, what for, and a gate that answers as told."""

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from commands.admission import GRACE, Admitted, Call
from commands.fact_writer import FactWriter
from commands.ports import AdmitRequest, FactLog, Granted, OpenHold, Refused
from domain.budget import Scope
from domain.envelope import decode
from domain.facts import BudgetHold, RequestAdmitted
from domain.fold import Books
from domain.ids import partition_of
from domain.period import Period
from domain.price_list import PriceEntry, PriceList, Rates, price_at
from domain.registry import decode_event
from domain.scope import Caller, PublishedModel, ScopedBudget, Target
from domain.service_key import Limits
from tests.factgen import MemoryLog

MORNING = datetime(2026, 11, 23, 9, tzinfo=UTC)
ORG = "acme"
PARTITION = partition_of(ORG)
LIFETIME = Period(kind="lifetime")


def rates(nano: int) -> Rates:
    """A price of `nano` nano-dollars for every token of every class."""
    millions = nano * 10**6
    return Rates(input=millions, output=millions, cached_input=millions, cache_write=millions, reasoning=millions)


PRICES = PriceList(model="m", history=(PriceEntry(number=1, effective_from=MORNING, rates=rates(1)),))
TARGET = Target("fake", "http://fake/v1", "openai", None, 60.0, "m-up", 1, 0)


def model(prices: PriceList | None = PRICES, bound_exceeded: bool = False) -> PublishedModel:
    return PublishedModel("m", (TARGET,), 50, 1000, prices, bound_exceeded)


def budget(
    id: str = "cap",
    limit: int = 10_000,
    hard: bool = True,
    period: Period = LIFETIME,
    models: frozenset[str] | None = None,
) -> ScopedBudget:
    return ScopedBudget(id, Scope(kind="org"), 1, limit, 1, hard, models, period)


def caller(*budgets: ScopedBudget, limits: Limits = Limits()) -> Caller:
    return Caller(ORG, "web", None, "key_1", PARTITION, None, limits, budgets, 402, None, None)


def call(cap: int | None = 20, **fields: Any) -> Call:
    return Call("chat.completions", "m", False, input_bound=100, estimated_input=25, cap=cap, **fields)


class Watch:
    """A clock that the test sets."""

    def __init__(self, now: datetime = MORNING) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def writer(log: FactLog, clock: Callable[[], datetime]) -> FactWriter:
    numbers = itertools.count(1)
    return FactWriter(log, clock, lambda prefix: f"{prefix}_{next(numbers)}")


def facts(topic: MemoryLog, partition: int = PARTITION) -> list[Any]:
    """What a partition of the log says, in order."""
    return [fact(record.value) for record in topic.records[partition]]


def fact(body: bytes) -> Any:
    return decode_event(decode(body))


class ToldGate:
    """`Gate` that grants the whole wish unless `answer` says otherwise, and keeps a `story` of what was done to it."""

    def __init__(self, story: list[tuple[Any, ...]] | None = None) -> None:
        self.story = [] if story is None else story
        self.answer: Callable[[AdmitRequest], Granted | Refused] = granted
        self.asked: list[AdmitRequest] = []
        self.captured: list[tuple[int, str, int]] = []
        self.unlogged: list[tuple[datetime, OpenHold]] = []
        self.loaded: dict[int, tuple[int, int, Books]] = {}

    async def admit(self, request: AdmitRequest) -> Granted | Refused:
        self.asked.append(request)
        return self.answer(request)

    def capture(self, partition: int, attempt: str, actual: int) -> None:
        self.captured.append((partition, attempt, actual))

    async def expired(self, before: datetime) -> Sequence[OpenHold]:
        return [hold for at, hold in self.unlogged if at < before]

    async def run(self) -> str:
        return "run-1"

    async def begin(self, partition: int, run: str, epoch: int) -> None:
        self.story.append(("begin", partition, epoch))

    async def finish(self, partition: int, run: str, epoch: int, watermark: int, books: Books) -> None:
        self.story.append(("finish", partition, epoch))
        self.loaded[partition] = (epoch, watermark, books)


def granted(request: AdmitRequest, grant: int | None = None) -> Granted:
    """`request` held, at `grant` tokens of output (None: all it wants)."""
    grant = request.want if grant is None else grant
    seen = tuple(
        BudgetHold(
            budget=claim.budget,
            bucket=claim.window[-1],
            until=claim.until,
            limit=claim.limit,
            limit_version=claim.version,
            mode="hard" if claim.hard else "soft",
            consumed=0,
            held=0,
        )
        for claim in request.budgets
    )
    return Granted(request.base + request.unit * grant, grant, seen)


def admission(request: str = "req_1", hold: int = 100, epoch: int = 0, **fields: Any) -> RequestAdmitted:
    """The fact of an admission at `MORNING`, on the budget ``cap``; overdue after `TARGET`'s timeout."""
    terms: dict[str, Any] = {
        **_identity(request, hold),
        "epoch": epoch,
        "deadline": MORNING + timedelta(seconds=TARGET.timeout_seconds) + GRACE,
        "backend": "fake",
        "budgets": (
            BudgetHold(
                budget="cap",
                bucket="1.lifetime",
                until=None,
                limit=10_000,
                limit_version=1,
                mode="hard",
                consumed=0,
                held=0,
            ),
        ),
    }
    return RequestAdmitted(**{**terms, **fields})


def admitted(request: str = "req_1", hold: int = 100, priced: bool = True) -> Admitted:
    """A request that may be dispatched."""
    price = price_at(PRICES, MORNING) if priced else None
    identity = _identity(request, hold)
    return Admitted(request, caller(), call(), price, Granted(hold, 20, ()), 0, MORNING, 0.0, False, identity)


def _identity(request: str, hold: int) -> dict[str, Any]:
    return {
        "request": request,
        "attempt": request,
        "org": ORG,
        "project": "web",
        "key": "key_1",
        "model": "m",
        "endpoint": "chat.completions",
        "accounted_at": MORNING,
        "price": "m@1",
        "hold": hold,
    }
