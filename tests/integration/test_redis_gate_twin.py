"""The gate on Redis answers whatever is asked of it exactly as the gate in memory does."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.ports import AdmitRequest, BudgetClaim, OpenHold, RateClaim, Settled
from domain.errors import Conflict
from domain.fold import Attempt, Books, Bucket, State
from infra.adapters.memory_gate import MemoryGate
from infra.adapters.redis_gate import RedisGate
from tests.redis_server import RedisServer, redis_server

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
PARTITIONS = 2
ORG = "acme"

# Budget: the window, and minutes from START until its last bucket has left every window.
_WINDOWS: dict[str, tuple[tuple[str, ...], int | None]] = {
    "cap": (("1.lifetime",), None),
    "day": (("1.2026-11-23",), 30),
    "roll": (("2.2026-11-22", "2.2026-11-23"), 5),
    "past": (("2.2026-11-22",), 1),
}
_RATES = ("requests", "tokens", "concurrent")
_FACTS = ("Admitted", "Completed", "Failed", "Voided", "WrittenOff", "Unconfirmed", "Denied")
_KEYS = ("k1", "k2", "k3")
_ATTEMPTS = tuple(f"req_{number}" for number in range(6))

amounts = st.integers(0, 40)
attempts = st.sampled_from(_ATTEMPTS)
onces = st.sampled_from(_KEYS)


def until_of(budget: str) -> datetime | None:
    minutes = _WINDOWS[budget][1]
    return None if minutes is None else START + timedelta(minutes=minutes)


@st.composite
def claims(draw: st.DrawFn) -> tuple[BudgetClaim, ...]:
    names = draw(st.lists(st.sampled_from(sorted(_WINDOWS)), unique=True, max_size=3))
    return tuple(
        BudgetClaim(
            name, _WINDOWS[name][0], until_of(name), draw(st.integers(0, 100)), draw(st.integers(-1, 3)), draw(_mostly)
        )
        for name in names
    )


@st.composite
def rate_claims(draw: st.DrawFn) -> tuple[RateClaim, ...]:
    kinds = draw(st.lists(st.sampled_from(_RATES), unique=True, max_size=3))
    return tuple(RateClaim(f"{ORG}/key/{kind}", kind, draw(st.integers(0, 4))) for kind in kinds)


@st.composite
def admissions(draw: st.DrawFn) -> dict[str, Any]:
    want = draw(st.integers(0, 12))
    return {
        "attempt": draw(attempts),
        "once": draw(st.none() | onces),
        "base": draw(amounts),
        "unit": draw(st.integers(0, 5)),
        "want": want,
        "least": draw(st.sampled_from((min(1, want), want))),
        "budgets": draw(claims()),
        "rates": draw(st.just(()) | rate_claims()),
        "tokens": draw(st.integers(0, 3)),
    }


@st.composite
def books(draw: st.DrawFn) -> Books:
    """What a fold may leave behind: sums that fit the attempts."""
    made = Books()
    for name in draw(st.lists(st.sampled_from(sorted(_WINDOWS)), unique=True, max_size=4)):
        key = (ORG, name, _WINDOWS[name][0][-1])
        made.buckets[key] = Bucket(draw(amounts), 0, 0, until_of(name))
    for id in draw(st.lists(attempts, unique=True, max_size=4)):
        state = draw(st.sampled_from(State))
        live = state in (State.OPEN, State.UNCONFIRMED)
        keys = (
            tuple(draw(st.lists(st.sampled_from(sorted(made.buckets)), unique=True))) if live and made.buckets else ()
        )
        hold = draw(amounts) if live else 0
        at = START + timedelta(hours=draw(st.integers(-30, 0)))
        made.attempts[id] = Attempt(state, at, hold, keys)
        for key in keys:
            bucket = made.buckets[key]
            if state is State.OPEN:
                bucket.held += hold
            else:
                bucket.consumed += hold
                bucket.estimated += hold
        if draw(st.booleans()):
            made.once[draw(onces)] = (id, at)
    return made


_mostly = st.sampled_from((True, True, True, False))
_facts = st.tuples(st.sampled_from(_FACTS), attempts, amounts)
# Quarters of a second are exact in a float, which the gate in memory measures windows with.
_seconds = st.sampled_from((0.0, 0.25, 1.0, 20.0, 59.75, 60.0, 60.25, 600.0, 3600.0, 90_000.0))

operations = st.one_of(
    st.tuples(st.just("admit"), admissions(), st.sampled_from((0, 0, 0, 0, 61, -60)), _mostly, _mostly),
    st.tuples(st.just("admit"), admissions(), st.just(0), st.just(True), st.just(True)),
    st.tuples(st.just("capture"), attempts, amounts),
    st.tuples(st.just("settle"), st.lists(_facts, max_size=6), _mostly, _mostly),
    st.tuples(st.just("advance"), _seconds),
    st.tuples(st.just("expired"), st.integers(-60, 60)),
    st.tuples(st.just("open"), books(), _mostly),
    st.tuples(st.just("begin"), st.integers(0, 3)),
)


class Twins:
    """One of each gate, on the same clock. Every operation asks both and compares."""

    def __init__(self, server: RedisServer) -> None:
        self.now = START
        self.memory = MemoryGate(PARTITIONS, lambda: self.now, server.info("run_id"))
        self.redis = RedisGate(server.url, PARTITIONS, clock=lambda: self.now, timeout=10.0)
        self.epoch = [-1] * PARTITIONS

    async def both(self, name: str, *arguments: Any) -> Any:
        answers: list[Any] = []
        for gate in (self.memory, self.redis):
            try:
                answers.append(await getattr(gate, name)(*arguments))
            except Conflict as error:
                answers.append(error.code)
        assert answers[0] == answers[1], (name, arguments)
        return answers[0]

    async def open(self, partition: int, loaded: Books, *, finished: bool) -> None:
        self.epoch[partition] += 1
        epoch = self.epoch[partition]
        await self.both("begin", partition, self.memory.identity, epoch)
        if finished:
            await self.both("finish", partition, self.memory.identity, epoch, 100, loaded)

    async def step(self, partition: int, operation: tuple[Any, ...]) -> None:
        run, epoch = self.memory.identity, self.epoch[partition]
        match operation:
            case "admit", asked, skew, right_run, right_epoch:
                request = AdmitRequest(
                    partition=partition,
                    run=run if right_run else "elsewhere",
                    epoch=epoch if right_epoch else epoch + 1,
                    org=ORG,
                    accounted_at=self.now + timedelta(seconds=skew),
                    **asked,
                )
                await self.both("admit", request)
            case "capture", attempt, actual:
                self.memory.capture(partition, attempt, actual)
                self.redis.capture(partition, attempt, actual)
            case "settle", some, right_start, right_epoch:
                facts = [Settled(f"Request{what}", attempt, cost) for what, attempt, cost in some]
                start = (await self.both("watermark", partition) or 0) + (0 if right_start else 1)
                await self.both("settle", partition, run, epoch if right_epoch else epoch + 1, start, facts)
            case "advance", seconds:
                self.now += timedelta(seconds=seconds)
            case "expired", seconds:
                before = self.now + timedelta(seconds=seconds)
                found = [sorted(await gate.expired(before), key=_order) for gate in (self.memory, self.redis)]
                assert found[0] == found[1]
            case "open", loaded, finished:
                await self.open(partition, loaded, finished=finished)
            case "begin", epoch:
                if await self.both("begin", partition, run, epoch) is None:
                    self.epoch[partition] = epoch
        await self.both("watermark", partition)


def _order(hold: OpenHold) -> tuple[int, str, str]:
    return hold.partition, hold.org, hold.attempt


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        yield made


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    loaded=books(),
    script=st.lists(st.tuples(st.sampled_from((0, 0, 0, 1)), operations), min_size=1, max_size=40),
)
def test_any_sequence_is_answered_alike(
    server: RedisServer, loaded: Books, script: list[tuple[int, tuple[Any, ...]]]
) -> None:
    """Whatever is asked in whatever order, both gates give equal answers, and equal errors."""

    async def run() -> None:
        twins = Twins(server)
        try:
            await twins.redis.run()
            await twins.open(0, loaded, finished=True)
            for partition, operation in script:
                await twins.step(partition, operation)
        finally:
            await twins.redis.close()

    server.ask("FLUSHALL")
    asyncio.run(run())
