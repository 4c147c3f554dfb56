"""Admission: what the gate is asked, what is refused before it is, and that nothing is dispatched that is not in the log."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from commands import admission, fact_writer
from commands.admission import DELTA, GRACE, Admission, Admitted, Call, Denied
from commands.fact_writer import DOWN_SECONDS, FactWriter
from commands.gate import AdmitRequest, BudgetClaim, Granted, RateClaim, Refused
from domain.budget import Scope
from domain.envelope import decode
from domain.errors import GateUnavailable, LogUnavailable, NotReady
from domain.facts import BudgetHold, RequestAdmitted
from domain.limits import Limits
from domain.period import Period
from domain.price_list import PriceEntry, PriceList, Rates, timeline
from domain.registry import decode_event
from domain.scope import Caller, PublishedModel, ScopedBudget, ScopedLimits, Target
from tests.cranked import Crank
from tests.factgen import MemoryLog
from tests.fakes import FlightLog, InstantLog
from tests.gate_world import GateWorld
from tests.waiting import until

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
RATES = Rates(
    input=2_000_000, output=5_000_000, cached_input=3_000_000, cache_write=0, reasoning=4_000_000, per_request=7
)
PRICES = timeline(PriceList(model="m", history=(PriceEntry(number=1, effective_from=LONG_AGO, rates=RATES),)))
TARGET = Target("fake", "http://fake/v1", "openai", None, 30.0, "up", 1, 0)
MODEL = PublishedModel("m", (TARGET,), max_output_tokens=50, context_tokens=9000, prices=PRICES, bound_exceeded=False)


def replace_rates(**rates: int) -> PublishedModel:
    """The model with other prices."""
    entry = PriceEntry(number=1, effective_from=LONG_AGO, rates=structs.replace(RATES, **rates))
    return replace(MODEL, prices=timeline(PriceList(model="m", history=(entry,))))


LIFETIME, ROLLING = Period(kind="lifetime"), Period(kind="rolling", days=2)


def budget(
    name: str = "cap", *, hard: bool = True, models: frozenset[str] | None = None, **fields: Any
) -> ScopedBudget:
    return ScopedBudget(name, Scope(kind="org"), 3, 1000, 2, hard, models, **({"period": LIFETIME} | fields))


def caller(*budgets: ScopedBudget, limits: tuple[ScopedLimits, ...] = ()) -> Caller:
    return Caller("acme", "web", "ada", "key_1", 0, None, limits, budgets, 402, None, None)


def call(**fields: Any) -> Call:
    return Call("chat", "m", False, input_bound=100, estimated_input=25, **fields)


class AskedGate:
    """`Gate.admit` that remembers what it was asked, and answers what it was told."""

    def __init__(self) -> None:
        self.asked: list[AdmitRequest] = []
        self.answer: Granted | Refused | None = None

    async def admit(self, request: AdmitRequest) -> Granted | Refused:
        self.asked.append(request)
        return self.answer or Granted(request.base + request.unit * request.want, request.want, ())


class Seen:
    """`View` as of `epoch`."""

    version, is_fresh = 1, True

    def fresh(self, monotonic: float) -> bool:
        return self.is_fresh

    def epoch(self, partition: int) -> int:
        return 4


class House:
    """An admission between a gate that can be asked and a log in memory."""

    def __init__(self, crank: Crank) -> None:
        self.crank = crank
        self.topic = MemoryLog()
        self.log, self.gate, self.view = InstantLog(self.topic), AskedGate(), Seen()
        self.writer = FactWriter(self.log, crank.now, lambda prefix: f"{prefix}_x")
        self.admission = Admission(self.gate, self.writer, self.view, crank.now, "run_1")  # type: ignore[arg-type]  # only its admit is used

    async def admit(self, call: Call, *budgets: ScopedBudget, model: PublishedModel = MODEL, **of: Any) -> Admitted:
        return await self.admission.admit("req_1", caller(*budgets, **of), call, model)

    async def asked(self, call: Call, *budgets: ScopedBudget, **of: Any) -> AdmitRequest:
        await self.admit(call, *budgets, **of)
        return self.gate.asked[-1]

    def facts(self) -> list[Any]:
        return [decode_event(decode(record.value)) for record in self.topic.records[0]]


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> House:
    crank = Crank()
    for module in (admission, fact_writer):
        monkeypatch.setattr(module, "time", crank)
    return House(crank)


# -- what the gate is asked


async def test_the_worst_case_is_the_bound_at_the_dearest_class(house: House) -> None:
    """Input at its dearest class and the price per request are the base; the dearest output class, by choices, the unit."""
    asked = await house.asked(call(choices=3), budget())
    assert (asked.base, asked.unit) == (100 * 3 + 7, 5 * 3)


async def test_sound_and_pictures_are_held_for_only_where_they_can_be(house: House) -> None:
    """Where they cost more than text: on the input's side if it may be more than text, in the answer if it may be spoken."""
    media = replace_rates(audio_input=40_000_000, image_input=9_000_000, audio_output=80_000_000)
    for asked, base, unit in (
        (call(), 100 * 3, 5),
        (call(spoken=True), 100 * 3, 80),
        (call(context_bounded=True), 9000 * 40, 5),
    ):
        found = await house.asked(asked, budget(), model=media)
        assert (found.base, found.unit) == (base + 7, unit)


async def test_a_stated_cap_is_kept_and_an_unstated_one_may_be_clamped(house: House) -> None:
    """`least` is the whole cap where the caller stated one, else one token; the default cap is the model's."""
    stated, unstated = await house.asked(call(cap=20)), await house.asked(call())
    assert (stated.want, stated.least) == (20, 20)
    assert (unstated.want, unstated.least) == (50, 1)


async def test_what_only_the_context_bounds_counts_as_a_full_context(house: House) -> None:
    """An image by URL may fill it."""
    bounded = call(context_bounded=True)
    assert (await house.asked(bounded, budget())).base == 9000 * 3 + 7
    (fact,) = house.facts()
    assert fact.input_bound == 9000


async def test_without_a_price_nothing_is_held(house: House) -> None:
    """Where no hard budget asks for more."""
    model = replace(MODEL, prices=())
    asked = await house.asked(call(), budget(hard=False), model=model)
    assert (asked.base, asked.unit) == (0, 0)


async def test_budgets_in_scope_come_with_their_windows(house: House) -> None:
    """Only those that count this model; buckets begin with the budget's life, the last takes the hold."""
    others = budget("others", models=frozenset({"n"}))
    mine = budget("mine", models=frozenset({"m", "n"}), period=ROLLING)
    asked = await house.asked(call(), budget(), others, mine)
    names = ("3.2026-11-22", "3.2026-11-23")
    until = datetime(2026, 11, 25, tzinfo=UTC)
    assert asked.budgets == (
        BudgetClaim("cap", ("3.lifetime",), None, 1000, 2, True),
        BudgetClaim("mine", names, until, 1000, 2, True),
    )


async def test_a_new_day_is_a_new_bucket(house: House) -> None:
    """Though nothing changed in the control topic."""
    daily = budget(period=Period(kind="day"))
    first = (await house.asked(call(), daily)).budgets[0].window
    house.crank.advance(86400)
    assert (first, (await house.asked(call(), daily)).budgets[0].window) == (("3.2026-11-23",), ("3.2026-11-24",))


async def test_a_new_limit_is_asked_for_once_the_view_knows_it(house: House) -> None:
    """Claims are kept from request to request only while the view is the same."""
    before = (await house.asked(call(), replace(budget(), limit=1000))).budgets[0].limit
    house.view.version += 1
    assert (before, (await house.asked(call(), replace(budget(), limit=20))).budgets[0].limit) == (1000, 20)


async def test_rate_limits_are_asked_for_with_the_budgets(house: House) -> None:
    """Tokens count the estimated input and all the output asked for."""
    limits = ScopedLimits(Scope(kind="org"), Limits(tokens_per_minute=900))
    asked = await house.asked(call(cap=20, choices=2), limits=(limits,))
    assert asked.rates == (RateClaim("acme/org/tokens", "tokens", 900, "key_1"),)
    assert asked.tokens == 25 + 20 * 2
    house.view.version += 1
    assert (await house.asked(call())).rates == ()


async def test_the_gate_is_asked_as_its_view_knows_it(house: House) -> None:
    """Run, epoch, the moment by the gateway's clock, the Idempotency-Key's hash."""
    asked = await house.asked(call(once="hash"))
    assert (asked.run, asked.epoch, asked.once, asked.attempt) == ("run_1", 4, "hash", "req_1")
    assert (asked.org, asked.partition, asked.accounted_at) == ("acme", 0, house.crank.now())


# -- what is refused


@pytest.mark.parametrize(
    ("asked", "model", "code", "param"),
    [
        (call(), replace(MODEL, prices=()), "model_unpriced", "model"),
        (call(unbounded="audio"), MODEL, "unbounded_cost", "audio"),
        (call(), replace(MODEL, bound_exceeded=True), "unbounded_cost", "model"),
    ],
)
async def test_a_hard_budget_needs_a_bound(
    house: House, asked: Call, model: PublishedModel, code: str, param: str
) -> None:
    """Refused before the gate is asked, naming the field; without a hard budget for this model it goes through."""
    with pytest.raises(Denied) as denied:
        await house.admit(asked, budget(hard=False), budget("hard"), model=model)
    assert (denied.value.code, denied.value.param, house.gate.asked) == (code, param, [])
    house.view.version += 1
    await house.admit(asked, budget(hard=False), budget("hard", models=frozenset({"n"})), model=model)


@pytest.mark.parametrize(
    ("field", "booked"), [("tools", "tools"), ("prediction", "prediction"), ("my secret", "something unknown")]
)
async def test_only_names_of_the_protocols_are_booked(house: House, field: str, booked: str) -> None:
    """The caller is told what it called the field; the books are not, for that may be anything."""
    with pytest.raises(Denied) as denied:
        await house.admit(call(unbounded=field), budget())
    assert f"the cost of {field} has" in denied.value.message
    assert f"the cost of {booked} has" in denied.value.reason


@pytest.mark.parametrize("code", ["budget_busy", "insufficient_quota", "rate_limit_exceeded", "duplicate_request"])
async def test_the_gates_refusal_is_handed_on(house: House, code: str) -> None:
    """With what it was asked about, so that the denial explains itself; no fact of an admission."""
    rate = RateClaim("acme/k/tokens", "tokens", 5)
    house.gate.answer = Refused(code, budget="cap", first="req_0", rate=rate)
    with pytest.raises(Denied) as denied:
        await house.admit(call(cap=10), budget())
    found = denied.value
    assert (found.code, found.refused, found.price, found.worst) == (code, house.gate.answer, PRICES_1, 307 + 50)
    named = {"duplicate_request": "req_0", "rate_limit_exceeded": "5 tokens"}.get(code, "budget cap")
    assert named in found.message
    assert house.facts() == []


async def test_a_closed_gate_is_unavailable(house: House) -> None:
    """503, and no denial: nothing was decided."""
    house.gate.answer = Refused("gate_unavailable")
    with pytest.raises(GateUnavailable):
        await house.admit(call())


async def test_an_old_view_admits_nothing(house: House) -> None:
    """The gate is not even asked."""
    house.view.is_fresh = False
    with pytest.raises(NotReady):
        await house.admit(call())
    assert house.gate.asked == []


# -- durable before dispatch


async def test_the_admission_freezes_what_replay_needs(house: House) -> None:
    """Identity, holds with limits and balances, price version, epoch, grant and deadline."""
    view = BudgetHold(
        budget="cap", bucket="3.lifetime", until=None, limit=9, limit_version=2, mode="hard", consumed=1, held=2
    )
    house.gate.answer = Granted(99, 20, (view,))
    admitted = await house.admit(call(once="hash"), budget())
    assert (admitted.grant, admitted.hold, admitted.clamped) == (20, 99, True)
    now = house.crank.now()
    expected = RequestAdmitted(
        request="req_1", attempt="req_1", org="acme", project="web", user="ada", key="key_1", model="m", endpoint="chat",
        accounted_at=now, price="m@1", hold=99, epoch=4, deadline=now + timedelta(seconds=30) + GRACE, budgets=(view,),
        backend="fake", grant=20, clamped=True, input_bound=100, once="hash",
    )  # fmt: skip
    assert house.facts() == [expected]


async def test_what_was_clamped_says_so(house: House) -> None:
    """The cap to send upstream is the one that is held for."""
    house.gate.answer = Granted(300, 7, ())
    admitted = await house.admit(call())
    assert (admitted.grant, admitted.hold, admitted.clamped) == (7, 300, True)
    (fact,) = house.facts()
    assert (fact.grant, fact.hold, fact.clamped) == (7, 300, True)


async def test_nothing_is_admitted_before_the_log_says_so(house: House) -> None:
    """The append begins at once; the answer waits for its acknowledgement."""
    flight = FlightLog(house.topic)
    house.writer._log = flight
    admitting = asyncio.create_task(house.admit(call()))
    await until(lambda: bool(flight.flight), "an append")
    assert not admitting.done()
    flight.arrive()
    assert (await admitting).request == "req_1"


async def test_a_log_that_fails_admits_nothing_for_a_moment(house: House) -> None:
    """The request is refused and recorded as not dispatched; then nothing is even asked until a moment later."""
    house.log.break_off()
    with pytest.raises(LogUnavailable):
        await house.admit(call())
    house.log.come_back()
    with pytest.raises(LogUnavailable):
        await house.admit(call())
    assert len(house.gate.asked) == 1
    house.crank.advance(DOWN_SECONDS)
    await house.admit(call())
    await house.writer.drain()
    assert sorted(type(fact).__name__ for fact in house.facts()) == ["RequestAdmitted", "RequestFailed"]


async def test_an_admission_that_nobody_waits_for_any_more_is_never_dispatched(house: House) -> None:
    """The process ends before the log has answered: wherever the admission is, the books say that nothing was sent."""
    flight = FlightLog(house.topic)
    house.writer._log = flight
    admitting = asyncio.create_task(house.admit(call()))
    await until(lambda: bool(flight.flight), "an append")
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    flight.arrive_unacknowledged()
    await until(lambda: bool(flight.flight), "what is said of it")
    flight.arrive()
    await house.writer.drain()
    assert [type(fact).__name__ for fact in house.facts()] == ["RequestAdmitted", "RequestFailed"]


@pytest.mark.parametrize("embedded", [True, False])
def test_an_admission_acknowledged_too_late_is_never_dispatched(embedded: bool) -> None:
    """DELTA counts from before the gate was asked. What the log says later changes nothing: void on the books, room free."""
    world = GateWorld(embedded=embedded)
    while not world.is_open():
        world.advance(1.0)
        for _, log in world.busy():
            world.arrive(log)
    sent = world.submit(world.gateways[0], "wide", 1, 2)
    (log,) = (log for _, log in world.busy())
    world.advance(DELTA - 0.01)
    early = sent.refused
    world.advance(0.01)
    assert (early, sent.refused) == (None, "log_unavailable")
    while log.flight:
        world.arrive(log)
    assert not sent.dispatched
    facts = [type(world.balances.fact(record.value)).__name__ for record in world.topic.records[0]]
    assert facts == ["GateOpened", "RequestAdmitted", "RequestFailed"]
    world.settle(3)
    view = world.probe("cap", "1.lifetime")
    assert view is not None
    assert (view.consumed, view.held) == (0, 0)
    world.end()


PRICES_1 = MODEL.price(datetime(2026, 11, 23, tzinfo=UTC))


async def test_nothing_is_admitted_while_the_clock_has_leapt(house: House) -> None:
    """Nobody knows then which period it is: `not_ready`, and the gate is not asked."""
    leapt = Admission(house.gate, house.writer, house.view, house.crank.now, "run_1", lambda: 7200.0)  # type: ignore[arg-type]  # only its admit is used
    with pytest.raises(NotReady, match="leapt by 7200 s"):
        await leapt.admit("req_1", caller(budget()), call(), MODEL)
    assert not house.gate.asked


async def test_a_cost_that_cannot_be_counted_is_refused(house: House) -> None:
    """Stored amounts are 64-bit integers; with or without a budget."""
    dear = replace(MODEL, max_output_tokens=1 << 60)
    with pytest.raises(Denied) as refused:
        await house.admit(call(), model=dear)
    assert refused.value.code == "unbounded_cost"
    assert not house.gate.asked
