"""The pieces of a `tests.gate_world.GateWorld` that stand for the outside: requests, views, orders, connections."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from commands.gate import AdmitRequest, Granted, OpenHold, Refused, Settled
from domain import price_list, write_off
from domain.budget import Scope
from domain.facts import Usage
from domain.fold import Books
from domain.period import Period
from domain.price_list import PriceEntry, PriceList, Rates, timeline
from domain.scope import Caller, PublishedModel, ScopedBudget, Target
from infra.adapters.memory_gate import MemoryGate
from projections.keyring import FRESH
from tests.cranked import START

ORG = "acme"
TIMEOUT = 5.0
"""Seconds of the backend; an attempt is overdue 5 s after that."""

# One nano-dollar a token, in and out: a request of `bound` tokens of input and `cap` of output holds bound + cap.
_RATES = Rates(input=10**6, output=10**6, cached_input=10**6, cache_write=10**6, reasoning=10**6)
PRICE_LIST = PriceList(model="m", history=(PriceEntry(number=1, effective_from=START, rates=_RATES),))
PRICES = timeline(PRICE_LIST)
TARGET = Target("fake", "http://fake/v1", "openai", None, TIMEOUT, "m", 1, 0)
MODEL = PublishedModel("m", (TARGET,), max_output_tokens=2, context_tokens=100, prices=PRICES, bound_exceeded=False)

LIFETIME = Period(kind="lifetime")
BUDGETS = {"wide": ("cap",), "narrow": ("cap", "second")}
"""The budgets on the path of each of the two service keys."""


@dataclass
class Sent:
    """A request as the outside knows it: the truth that the books are compared with."""

    id: str
    gateway: str
    backend: "asyncio.Future[Usage]"
    dispatched: bool = False
    hold: int = 0
    cost: int | None = None
    """What the backend served it for."""
    spared: bool = False
    """The backend surely never serves it."""
    broken: bool = False
    """The backend's answer did not come back whole."""
    answered: bool = False
    dead: bool = False
    """Its gateway was killed before it was through with it."""
    refused: str | None = None
    shown: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The limits and their versions that its gateway knew when it came."""

    @property
    def exposure(self) -> int:
        """What it has cost, or can still cost."""
        if self.cost is not None:
            return self.cost
        return 0 if self.spared or not self.dispatched else self.hold


@dataclass(frozen=True)
class Taken:
    """A hold as the gate took it: `order` among all, and per budget its window and the limit it was decided on."""

    order: int
    hold: int
    accounted_at: datetime
    windows: dict[str, tuple[str, ...]]
    limits: dict[str, tuple[int, int]]


@dataclass
class View:
    """`commands.admission.View` that learns when it is told to."""

    as_of: float = float("-inf")
    known: int = -1
    version: int = 0
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    periods: dict[str, Period] = field(default_factory=dict)

    def fresh(self, monotonic: float) -> bool:
        return monotonic - self.as_of <= FRESH

    def epoch(self, partition: int) -> int:
        return self.known

    def caller(self, key: str) -> Caller:
        budgets = tuple(
            ScopedBudget(name, Scope(kind="org"), 1, *self.limits[name], True, None, self.periods[name])
            for name in BUDGETS[key]
        )
        return Caller(ORG, "p", None, key, 0, None, (), budgets, 402, None, None)


class Orders:
    """Write-offs ordered, and the price list: what keeper and reconciliation ask the control topic for."""

    def __init__(self) -> None:
        self.given: dict[str, write_off.WriteOff] = {}

    def state(self, kind: str, org: str, name: str) -> Any:
        return PRICE_LIST if kind == price_list.KIND else self.given.get(name)

    def write_offs(self) -> list[tuple[str, str]]:
        return [(ORG, attempt) for attempt in self.given]


class Wire:
    """`Gate` and `GateSink` of one process: whichever gate it is connected to."""

    def __init__(self, gate: MemoryGate, taken: Callable[[AdmitRequest, Granted], None]) -> None:
        self.gate, self._taken = gate, taken
        self.captured: set[str] = set()

    async def admit(self, request: AdmitRequest) -> Granted | Refused:
        answer = await self.gate.admit(request)
        if isinstance(answer, Granted):
            self._taken(request, answer)
        return answer

    def capture(self, partition: int, attempt: str, actual: int, tokens: int | None = None) -> None:
        self.captured.add(attempt)
        self.gate.capture(partition, attempt, actual, tokens)

    async def expired(self, before: Any) -> list[OpenHold]:
        return list(await self.gate.expired(before))

    async def run(self) -> str:
        return await self.gate.run()

    async def begin(self, partition: int, run: str, epoch: int) -> None:
        await self.gate.begin(partition, run, epoch)

    async def finish(self, partition: int, run: str, epoch: int, watermark: int, books: Books) -> None:
        await self.gate.finish(partition, run, epoch, watermark, books)

    async def settle(self, partition: int, run: str, epoch: int, start: int, facts: Sequence[Settled]) -> bool:
        return await self.gate.settle(partition, run, epoch, start, facts)

    async def watermark(self, partition: int) -> int | None:
        return await self.gate.watermark(partition)
