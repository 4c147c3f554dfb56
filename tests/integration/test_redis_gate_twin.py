"""The gate on Redis answers whatever is asked of it exactly as the gate in memory does."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.gate import AdmitRequest, BudgetClaim, OpenHold, RateClaim, Settled
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
_KEYS = ("k1", "k2")
_SHARERS = ("key_a", "key_b", "key_c")
_ATTEMPTS = tuple(f"req_{number}" for number in range(5))

amounts = st.integers(0, 20)
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
            name, _WINDOWS[name][0], until_of(name), draw(st.integers(20, 100)), draw(st.integers(-1, 3)), draw(_mostly)
        )
        for name in names
    )


@st.composite
def rate_claims(draw: st.DrawFn) -> tuple[RateClaim, ...]:
    kinds = draw(st.lists(st.sampled_from(_RATES), unique=True, max_size=3))
    own = [RateClaim(f"{ORG}/key/{kind}", kind, draw(st.integers(0, 4))) for kind in kinds]
    kinds = draw(st.lists(st.sampled_from(_RATES), unique=True, max_size=3))
    sharer = draw(st.sampled_from(_SHARERS))
    return (*own, *(RateClaim(f"{ORG}/org/{kind}", kind, draw(st.integers(0, 4)), sharer) for kind in kinds))


@st.composite
def admissions(draw: st.DrawFn) -> dict[str, Any]:
    want = draw(st.integers(0, 12))
    return {
        "attempt": draw(attempts),
        "once": draw(st.none() | onces),
        "base": draw(amounts),
        "unit": draw(st.integers(0, 3)),
        "want": want,
        "least": draw(st.sampled_from((min(1, want), want))),
        "budgets": draw(claims()),
        "rates": draw(st.one_of(st.just(()), st.just(()), rate_claims())),
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


_mostly = st.integers(0, 11).map(bool)
_facts = st.tuples(st.sampled_from(_FACTS), attempts, amounts)
# Quarters of a second are exact in a float, which the gate in memory measures windows with.
_seconds = st.sampled_from((0.0, 0.25, 20.0, 59.75, 60.0, 61.0, 240.0, 3600.0, 90_000.0))
_admit = st.tuples(st.just("admit"), admissions(), st.sampled_from((*[0] * 8, 60, 61, -60, -61)), _mostly, _mostly)
_rare = st.one_of(
    st.tuples(st.just("open"), books(), _mostly),
    st.tuples(st.just("begin"), st.integers(0, 3)),
    st.tuples(st.just("expired"), st.integers(-60, 60)),
    st.tuples(st.just("expired"), st.integers(-60, 60)),
)

operations = st.one_of(
    _admit,
    _admit,
    _admit,
    st.tuples(st.just("capture"), attempts, amounts),
    st.tuples(st.just("settle"), st.lists(_facts, max_size=8), _mostly, _mostly),
    st.tuples(st.just("settle"), st.lists(_facts, max_size=8), _mostly, _mostly),
    st.tuples(st.just("advance"), _seconds),
    _rare,
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
                self.memory.capture(partition, attempt, actual, actual or None)
                self.redis.capture(partition, attempt, actual, actual or None)
            case "settle", some, right_start, right_epoch:
                facts = [Settled(f"Request{what}", attempt, cost, cost or None) for what, attempt, cost in some]
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


def admit(attempt: str, **asked: Any) -> tuple[Any, ...]:
    """An admission that costs 10, of nothing but what is `asked`."""
    plain = {"once": None, "base": 10, "unit": 0, "want": 1, "least": 1, "budgets": (), "rates": (), "tokens": 1}
    return "admit", {"attempt": attempt, **plain, **asked}, 0, True, True


def settle(*facts: tuple[str, str, int]) -> tuple[Any, ...]:
    return "settle", list(facts), True, True


def advance(seconds: float) -> tuple[Any, ...]:
    return "advance", seconds


def on(budget: str, limit: int, version: int = 1, *, hard: bool = True) -> BudgetClaim:
    return BudgetClaim(budget, _WINDOWS[budget][0], until_of(budget), limit, version, hard)


_DAY, _CAP, _SOFT = (on("day", 100),), (on("cap", 25),), (on("cap", 5, hard=False),)
_TOKENS = (RateClaim("key/tokens", "tokens", 4),)
_ALL = (RateClaim("key/requests", "requests", 2), *_TOKENS, RateClaim("key/slots", "concurrent", 1))

SCENARIOS: dict[str, list[tuple[Any, ...]]] = {
    "a window of 60 s ends to the moment": [
        admit("a", rates=_TOKENS, tokens=2), advance(20), admit("b", rates=_TOKENS, tokens=2),
        admit("c", rates=_TOKENS, tokens=1), admit("c", rates=_TOKENS, tokens=2), admit("c", rates=_TOKENS, tokens=3),
        advance(39.75), admit("d", rates=_TOKENS, tokens=1),
        advance(0.25), admit("e", rates=_TOKENS, tokens=2), admit("f", rates=_TOKENS, tokens=3),
        admit("g", rates=_TOKENS, tokens=5), advance(60), settle(), admit("h", rates=_TOKENS, tokens=4),
    ],
    "tokens are those that a request was of": [
        admit("a", rates=_TOKENS, tokens=3), admit("b", rates=_TOKENS, tokens=1), admit("c", rates=_TOKENS, tokens=1),
        ("capture", "a", 1), admit("d", rates=_TOKENS, tokens=2), settle(("Completed", "a", 9), ("Failed", "d", 0)),
        admit("e", rates=_TOKENS, tokens=3), settle(("Completed", "e", 2)), admit("f", rates=_TOKENS, tokens=1),
        ("capture", "b", 20), admit("g", rates=_TOKENS, tokens=1), advance(59.75), admit("h", rates=_TOKENS, tokens=1),
        advance(0.25), admit("i", rates=_TOKENS, tokens=4),
    ],
    "what has left the window corrects nothing": [
        admit("a", rates=_TOKENS, tokens=3), advance(61), settle(), admit("b", rates=_TOKENS, tokens=3),
        ("capture", "a", 1), admit("c", rates=_TOKENS, tokens=2), ("capture", "b", 1), admit("d", rates=_TOKENS, tokens=3),
    ],
    "rates go on through an opening, slots do not": [
        admit("a", rates=_ALL), admit("b", rates=_ALL), ("open", Books(), True), admit("c", rates=_ALL),
        admit("d", rates=_ALL), ("capture", "c", 1), ("capture", "c", 0), admit("e", rates=_ALL),
    ],
    "slots end with a capture, a fact, or when unconfirmed": [
        *(step for attempt, end in (
            ("a", ("capture", "a", 4)), ("b", settle(("Failed", "b", 0))), ("c", settle(("Voided", "c", 0))),
            ("d", settle(("Admitted", "d", 0), ("Unconfirmed", "d", 0))), ("e", settle(("Completed", "e", 3))),
        ) for step in (
            admit(attempt, rates=_ALL[2:]), admit("other", rates=_ALL[2:]), end, end,
        )),
        admit("f", rates=_ALL[2:]),
    ],
    "busy is not exhausted, and exhausted goes first": [
        admit("a", budgets=_CAP), admit("b", budgets=_CAP), admit("c", budgets=_CAP), admit("d", base=30, budgets=_CAP),
        admit("e", budgets=(on("cap", 25), on("day", 5))), settle(("Admitted", "a", 0), ("Unconfirmed", "a", 0)),
        admit("f", base=6, budgets=_CAP), admit("g", base=16, budgets=_CAP), admit("h", unit=2, want=9, budgets=_CAP),
    ],
    "a soft budget is counted and never refuses": [admit("a", budgets=_SOFT), admit("b", budgets=_SOFT)],
    "the highest version of a limit counts": [
        admit("a", budgets=(on("cap", 30, 2),)), admit("b", budgets=(on("cap", 5, 1),)),
        admit("c", budgets=(on("cap", 60, 1),)), admit("c", budgets=(on("cap", 5, 2),)),
        admit("d", base=1, budgets=(on("cap", 5, 3),)), admit("e", base=1, budgets=(on("cap", 50, 2),)),
    ],
    "the limit of a budget that nobody uses is forgotten": [
        admit("a", budgets=(on("past", 30, 2),)), settle(("Failed", "a", 0)), advance(60 + 3600), settle(),
        admit("b", budgets=(on("past", 50, 1),)), advance(60.25), settle(), admit("c", budgets=(on("past", 50, 1),)),
        admit("d", budgets=(on("cap", 30, 2),)), advance(90_000), settle(), admit("e", budgets=(on("cap", 50, 1),)),
    ],
    "what can never pass is told before what is only full": [
        admit("a", rates=_ALL), admit("b", rates=_ALL, tokens=5), admit("c", rates=_ALL),
        admit("d", rates=(RateClaim("x", "concurrent", 0),)), admit("e", rates=(RateClaim("y", "requests", 0),)),
        admit("f", rates=_TOKENS, tokens=5), admit("g", rates=_TOKENS, tokens=3),
    ],
    "output is clamped to what the tightest budget pays for": [
        admit("a", base=3, unit=4, want=50, budgets=(on("day", 90), on("cap", 60))),
        admit("b", base=3, unit=4, want=50, budgets=(on("day", 90), on("cap", 66))),
        admit("c", base=3, unit=4, want=8, least=8, budgets=(on("day", 90),)),
    ],
    "an attempt is granted once, whatever is asked again": [
        admit("a", budgets=_CAP, rates=_ALL, once="k1"), admit("a", base=99, budgets=_DAY), ("capture", "a", 3),
        admit("a", budgets=_CAP), settle(("Completed", "a", 3)), admit("a", budgets=_CAP),
    ],
    "an Idempotency-Key tells what became of its first request": [
        step for what in ("Completed", "Failed", "Voided", "Unconfirmed", "WrittenOff") for step in (
            admit(what, once=what), admit("again", once=what), settle((what, what, 1)), admit("again", once=what),
            settle(("Admitted", what, 1), (what, what, 1)), admit("again", once=what),
            settle(("Unconfirmed", what, 1), ("WrittenOff", what, 1)), admit("again", once=what),
        )
    ],
    "a key used anew after its day belongs to the new request": [
        admit("a", once="k1"), settle(("Admitted", "a", 0)), advance(86_400), settle(), admit("b", once="k1"),
        advance(60.25), settle(), admit("b", once="k1"), settle(("Completed", "a", 1)), admit("c", once="k1"),
    ],
    "what is unlogged is not unconfirmed, what is logged is not void": [
        admit("a", budgets=_CAP), settle(("Unconfirmed", "a", 0)), ("expired", 1), settle(("Admitted", "a", 0)),
        ("expired", 1), settle(("Voided", "a", 0), ("WrittenOff", "a", 0)), admit("b", budgets=_CAP),
        settle(("Unconfirmed", "a", 0), ("Unconfirmed", "a", 0)), ("capture", "a", 4), admit("c", base=0, budgets=_CAP),
        settle(("WrittenOff", "a", 0)), admit("d", base=0, budgets=_CAP),
    ],
    "a cost above its hold is booked as it is": [
        admit("a", budgets=_CAP), ("capture", "a", 40), admit("b", base=0, budgets=_CAP), settle(("Completed", "a", 40)),
        admit("c", base=0, budgets=_CAP),
    ],
    "an old bucket is forgotten an hour after its last window, not with a hold": [
        admit("a", budgets=_DAY), admit("b", budgets=_DAY), settle(("Completed", "a", 7)), advance(30 * 60 + 3600), settle(),
        admit("c", base=0, budgets=_DAY), advance(60.25), settle(), admit("d", base=0, budgets=_DAY),
        settle(("Failed", "b", 0), ("Failed", "c", 0), ("Failed", "d", 0)), advance(60), settle(),
        admit("e", base=0, budgets=_DAY), settle(("Failed", "e", 0)), advance(0.25), settle(),
        admit("f", base=0, budgets=_DAY),
    ],
    "a bucket is kept while it is not an hour since its last window": [
        admit("a", budgets=_DAY), settle(("Completed", "a", 7)), advance(60 * 60), settle(), admit("b", budgets=_DAY),
    ],
    "an idle rate key is forgotten and starts anew": [
        admit("a", rates=_ALL), ("capture", "a", 0), advance(60), settle(), admit("b", rates=_ALL), ("capture", "b", 0),
        advance(60.25), settle(), admit("c", rates=_ALL),
    ],
    "a clock that is a minute off is refused": [
        ("admit", {**admit("a")[1], "attempt": f"a{skew}"}, skew, True, True) for skew in (60, 61, -60, -61)
    ],
    "a settled fact is settled once": [
        admit("a", budgets=_CAP), ("settle", [("Admitted", "a", 0), ("Completed", "a", 5)], False, True),
        ("settle", [("Completed", "a", 5)], True, False), settle(("Completed", "a", 5), ("Completed", "a", 5)),
        admit("b", budgets=_CAP),
    ],
}  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_the_rules_are_the_same(server: RedisServer, scenario: list[tuple[Any, ...]]) -> None:
    """Each rule of the gate in memory, asked at its edges, has the same answers on Redis."""
    play(server, Books(), [(0, step) for step in scenario])


def play(server: RedisServer, loaded: Books, script: list[tuple[int, tuple[Any, ...]]]) -> None:
    """Asks both gates everything of `script`: (partition, operation)."""

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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    loaded=books(),
    script=st.lists(st.tuples(st.sampled_from((0, 0, 0, 1)), operations), min_size=1, max_size=40),
)
def test_any_sequence_is_answered_alike(
    server: RedisServer, loaded: Books, script: list[tuple[int, tuple[Any, ...]]]
) -> None:
    """Whatever is asked in whatever order, both gates give equal answers, and equal errors."""
    play(server, loaded, script)
