"""What became of a request: its price, its fact, and room freed only once the fact is durable."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from commands.admission import Admitted, Call
from commands.fact_writer import FactWriter
from commands.gate import Granted
from commands.outcomes import Outcomes
from domain.envelope import decode
from domain.errors import UpstreamFailed
from domain.facts import Try, Usage
from domain.pricing import Price
from domain.registry import decode_event
from domain.scope import Caller
from tests.factgen import MemoryLog
from tests.fakes import FlightLog
from tests.waiting import until

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PRICE = Price(version="m@1", input=10**6, output=2 * 10**6, cached_input=10**6, cache_write=10**6, reasoning=2 * 10**6)
CALLER = Caller("acme", "web", None, "key_1", 3, None, (), (), 402, None, None)
TRIES = (Try(backend="fake", status=200),)
HOLD = 100


def admitted(price: Price | None = PRICE) -> Admitted:
    identity = {
        "request": "req_1", "attempt": "req_1", "org": "acme", "project": "web", "user": None, "key": "key_1",
        "model": "m", "endpoint": "chat", "stream": False, "accounted_at": NOON, "price": price and price.version,
        "hold": HOLD,
    }  # fmt: skip
    asked = Call("chat", "m", False, input_bound=10, estimated_input=5)
    return Admitted("req_1", CALLER, asked, price, Granted(HOLD, 40, ()), 1, NOON, 0.0, False, identity)


class House:
    """Outcomes over a log in flight; `captured` is what the gate was told."""

    def __init__(self) -> None:
        self.topic = MemoryLog()
        self.log = FlightLog(self.topic)
        self.writer = FactWriter(self.log, lambda: NOON, lambda prefix: f"{prefix}_x")
        self.captured: list[tuple[int, str, int, int | None]] = []
        self.exceeded: list[tuple[str, str, int, int]] = []
        self.outcomes = Outcomes(self, self.writer, self._exceeded)  # type: ignore[arg-type]  # a gate whose capture is used

    def capture(self, partition: int, attempt: str, actual: int, tokens: int | None = None) -> None:
        self.captured.append((partition, attempt, actual, tokens))

    async def _exceeded(self, model: str, request: str, cost: int, hold: int) -> None:
        self.exceeded.append((model, request, cost, hold))

    async def completed(self, usage: Usage, price: Price | None = PRICE, **fields: Any) -> tuple[int, int]:
        task = asyncio.create_task(
            self.outcomes.completed(admitted(price), usage, backend="fake", tries=TRIES, **fields)
        )
        await self.arrive()
        return await task

    async def arrive(self) -> None:
        await until(lambda: bool(self.log.flight), "an append")
        assert self.captured == [], "room was freed before the fact was durable"
        self.log.arrive()

    def fact(self) -> Any:
        (record,) = self.topic.records[3]
        return decode_event(decode(record.value))


@pytest.fixture
async def house() -> House:
    return House()


async def test_a_completion_frees_room_only_once_it_is_durable(house: House) -> None:
    """Cost and offset are answered then; the fact carries usage, tries and flags."""
    assert await house.completed(Usage(input=10, output=20), first_token_ms=3.5) == (50, 0)
    assert house.captured == [(3, "req_1", 50, 30)]
    fact = house.fact()
    assert (fact.cost, fact.usage, fact.tries, fact.first_token_ms) == (50, Usage(input=10, output=20), TRIES, 3.5)
    assert (fact.hold, fact.price, fact.estimated, fact.overrun, fact.source) == (HOLD, "m@1", False, False, "gateway")
    assert house.exceeded == []


async def test_a_completion_is_repeated_until_the_log_takes_it(house: House) -> None:
    """The same bytes again: the fold counts them once."""
    task = asyncio.create_task(house.outcomes.completed(admitted(), Usage(output=1), backend="fake", tries=TRIES))
    await until(lambda: bool(house.log.flight), "an append")
    house.log.arrive_unacknowledged()
    await until(lambda: bool(house.log.flight), "another append")
    assert house.captured == []
    house.log.arrive()
    assert await task == (2, 1)
    first, second = house.topic.records[3]
    assert first.value == second.value


async def test_a_completion_that_nobody_waits_for_any_more_still_comes_into_the_log(house: House) -> None:
    """The process ends while the log does not answer: what is owed to it stays owed, until it is there."""
    task = asyncio.create_task(house.outcomes.completed(admitted(), Usage(output=1), backend="fake", tries=TRIES))
    await until(lambda: bool(house.log.flight), "an append")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    house.log.fail()
    await until(lambda: bool(house.log.flight), "another append")
    house.log.arrive()
    await house.writer.drain()
    assert (house.fact().usage, house.captured) == (Usage(output=1), [])


async def test_an_estimate_is_never_charged_above_its_hold(house: House) -> None:
    """We counted, nobody reported: the bound is at fault, or our count."""
    assert (await house.completed(Usage(output=1000), estimated=True))[0] == HOLD
    assert (house.fact().estimated, house.fact().overrun) == (True, False)


async def test_a_reported_cost_above_the_hold_is_booked_and_told(house: House) -> None:
    """As it is, flagged, and the model is reported: its bound was wrong."""
    assert (await house.completed(Usage(output=1000)))[0] == 2000
    await house.writer.drain()
    assert house.fact().overrun
    assert house.exceeded == [("m", "req_1", 2000, HOLD)]


async def test_without_a_price_nothing_is_charged(house: House) -> None:
    """Tokens are booked all the same."""
    assert (await house.completed(Usage(output=1000), None))[0] == 0
    assert (house.fact().usage.output, house.fact().overrun) == (1000, False)


async def test_a_failure_frees_everything_once_it_is_durable(house: House) -> None:
    """It surely cost nothing."""
    task = asyncio.create_task(
        house.outcomes.failed(admitted(), "upstream_status", backend="fake", tries=TRIES, status=400)
    )
    await house.arrive()
    assert await task == 0
    assert house.captured == [(3, "req_1", 0, 0)]
    assert (house.fact().reason, house.fact().status) == ("upstream_status", 400)


async def test_what_nobody_knows_stays_held(house: House) -> None:
    """Unconfirmed: the whole hold counts until something better is known. Only its place among those under way is free."""
    failure = UpstreamFailed("cut", sent=True, code="upstream_timeout")
    task = asyncio.create_task(house.outcomes.unconfirmed(admitted(), failure, backend="fake", tries=TRIES))
    await house.arrive()
    assert await task == 0
    assert house.captured == [(3, "req_1", HOLD, None)]
    assert house.fact().reason == "upstream_timeout"
