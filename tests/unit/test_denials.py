"""Denials: every refusal reaches the books, one by one or folded."""

from dataclasses import replace
from typing import Any

import pytest

from commands import denials as module
from commands.admission import Denied
from commands.denials import BURST, MAX_MODELS, PER_SECOND, Denials
from commands.fact_writer import FactWriter
from commands.gate import Refused
from commands.ports import FactLog
from domain.facts import RequestDenied
from domain.ids import partition_of
from domain.pricing import Price
from domain.scope import Caller
from tests.factgen import MemoryLog
from tests.facts import NOON, facts_of
from tests.fakes import FlightLog, InstantLog
from tests.waiting import until

EXHAUSTED = Denied("insufficient_quota", "exhausted", refused=Refused("insufficient_quota", budget="cap"))
BUSY = Denied("budget_busy", "busy", refused=Refused("budget_busy", budget="cap"))
PRICE = Price(version="m@1", input=1, output=1, cached_input=1, cache_write=1, reasoning=1)
CALLER = Caller("acme", "web", None, "key_1", partition_of("acme"), None, (), (), 402, None, None)


class House:
    def __init__(self, log: FactLog) -> None:
        self.writer = FactWriter(log, lambda: NOON, lambda prefix: f"{prefix}_x")
        self.seconds = 0.0
        self.denials = Denials(self.writer, lambda: NOON, lambda: self.seconds)

    def add(self, request: str, denied: Denied, model: str = "m", key: str = "key_1") -> None:
        self.denials.add(request, replace(CALLER, key=key), "chat.completions", model, 402, denied)


def written(topic: MemoryLog) -> list[Any]:
    return facts_of(topic, CALLER.partition)


async def test_equal_refusals_fold_when_the_line_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits, the others are counted per kind, with the first and the last id; none is lost."""
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    monkeypatch.setattr(module, "FOLD_SECONDS", 0.0)
    log = InstantLog(MemoryLog())
    house = House(log)
    for number, denied in enumerate([EXHAUSTED, EXHAUSTED, BUSY, EXHAUSTED, EXHAUSTED], 1):
        house.add(f"req_{number}", denied)
    await house.writer.drain()
    assert [(fact.code, fact.request, fact.count, fact.last) for fact in written(log.topic)] == [
        ("insufficient_quota", "req_1", 1, None),
        ("insufficient_quota", "req_2", 3, "req_5"),
        ("budget_busy", "req_3", 1, None),
    ]


async def test_what_a_caller_called_things_is_not_booked() -> None:
    """A reason may be other words than the message that the caller got."""
    log = InstantLog(MemoryLog())
    house = House(log)
    house.add("req_1", Denied("unbounded_cost", "the cost of my secret", reason="the cost of something"))
    house.add("req_2", EXHAUSTED)
    await house.writer.drain()
    assert [fact.reason for fact in written(log.topic)] == ["the cost of something", "exhausted"]


async def test_endlessly_many_names_fold_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many different ones, refusals of one key are counted whatever the model: memory stays bounded."""
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    monkeypatch.setattr(module, "FOLD_SECONDS", 0.0)
    monkeypatch.setattr(module, "MAX_FOLDED", 2)
    log = InstantLog(MemoryLog())
    house = House(log)
    for number in range(1, 8):
        house.add(f"req_{number}", EXHAUSTED, f"model-{number}")
    await house.writer.drain()
    assert [(fact.request, fact.count, fact.last) for fact in written(log.topic)] == [
        ("req_1", 1, None),
        ("req_2", 1, None),
        ("req_3", 1, None),
        ("req_4", 4, "req_7"),
    ]


async def test_a_flood_of_one_key_concerns_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals of a quiet key are kept one by one meanwhile, and those of the noisy one again when it has been quiet."""
    monkeypatch.setattr(module, "FOLD_SECONDS", 0.0)
    log = InstantLog(MemoryLog())
    house = House(log)
    for number in range(2 * BURST):
        house.add(f"req_{number}", EXHAUSTED)
    for number in range(3):
        house.add(f"other_{number}", EXHAUSTED, key="key_2")
    house.seconds = 2 * BURST / PER_SECOND
    for number in range(3):
        house.add(f"later_{number}", EXHAUSTED)
    await house.writer.drain()
    names = [fact.request for fact in written(log.topic) if fact.count == 1]
    assert {"other_0", "other_1", "other_2", "later_0", "later_1", "later_2"} <= set(names)


async def test_a_flood_leaves_a_bounded_number_of_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one key, between two looks: its allowance, and a few folded ones, first and last named."""
    log = InstantLog(MemoryLog())
    house = House(log)
    for number in range(10 * BURST):
        house.add(f"req_{number}", EXHAUSTED, f"m{number}")
    monkeypatch.setattr(module, "FOLD_SECONDS", 0.0)
    await house.writer.drain()
    facts = written(log.topic)
    assert len(facts) == BURST + MAX_MODELS + 1
    assert sum(fact.count for fact in facts) == 10 * BURST
    assert (facts[-1].model, facts[-1].last) == (None, f"req_{10 * BURST - 1}")
    house.seconds = 3.0
    for number in range(10 * BURST):
        house.add(f"again_{number}", EXHAUSTED)
    await house.writer.drain()
    assert len(written(log.topic)) - len(facts) == 3 * PER_SECOND + 1


async def test_a_refusal_waits_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was given at once; the fact comes when the log is back, and later ones do too."""
    monkeypatch.setattr("commands.fact_writer._RETRY_SECONDS", 0.0)
    log = FlightLog(MemoryLog())
    house = House(log)
    house.add("req_1", EXHAUSTED)
    await until(lambda: bool(log.flight), "a try")
    log.fail()
    for number in (1, 2):
        await until(lambda: bool(log.flight), "the fact in flight")
        log.arrive()
        await house.writer.drain()
        if number == 1:
            house.add("req_2", EXHAUSTED)
    assert [fact.request for fact in written(log.topic)] == ["req_1", "req_2"]


async def test_a_refusal_says_who_was_refused_what_and_why() -> None:
    """Key, model, status, budget, and what it could have cost at which price."""
    log = InstantLog(MemoryLog())
    house = House(log)
    denied = Denied(
        "insufficient_quota",
        "exhausted",
        refused=Refused("insufficient_quota", budget="cap"),
        price=PRICE,
        worst=120,
    )
    house.add("req_1", denied)
    await house.writer.drain()
    assert written(log.topic) == [
        RequestDenied(
            request="req_1",
            org="acme",
            project="web",
            key="key_1",
            model="m",
            endpoint="chat.completions",
            accounted_at=NOON,
            status=402,
            code="insufficient_quota",
            reason="exhausted",
            budget="cap",
            price="m@1",
            worst=120,
        )
    ]
