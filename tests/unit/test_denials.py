"""Denials: every refusal reaches the books, one by one or folded."""

import pytest

from commands import denials as module
from commands.admission import Denied
from commands.denials import Denials
from commands.ports import Refused
from domain.facts import RequestDenied
from domain.price_list import price_at
from tests.factgen import MemoryLog
from tests.fakes import FlightLog, InstantLog
from tests.unit.pieces import MORNING, PRICES, Watch, caller, facts, writer
from tests.waiting import until

EXHAUSTED = Denied("insufficient_quota", "exhausted", refused=Refused("insufficient_quota", budget="cap"))
BUSY = Denied("budget_busy", "busy", refused=Refused("budget_busy", budget="cap"))


async def test_equal_refusals_fold_when_the_line_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits, the others are counted per kind, with the first and the last id; none is lost."""
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    log, clock = InstantLog(MemoryLog()), Watch()
    facts_writer = writer(log, clock)
    denials = Denials(facts_writer, clock)
    for number, denied in enumerate([EXHAUSTED, EXHAUSTED, BUSY, EXHAUSTED, EXHAUSTED], 1):
        denials.add(f"req_{number}", caller(), "chat.completions", "m", 402, denied)
    await facts_writer.drain()
    assert [(fact.code, fact.request, fact.count, fact.last) for fact in facts(log.topic)] == [
        ("insufficient_quota", "req_1", 1, None),
        ("insufficient_quota", "req_2", 3, "req_5"),
        ("budget_busy", "req_3", 1, None),
    ]


async def test_a_refusal_waits_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was given at once; the fact comes when the log is back, and later ones do too."""
    monkeypatch.setattr("commands.fact_writer._RETRY_SECONDS", 0.0)
    log, clock = FlightLog(MemoryLog()), Watch()
    facts_writer = writer(log, clock)
    denials = Denials(facts_writer, clock)
    denials.add("req_1", caller(), "chat.completions", "m", 402, EXHAUSTED)
    await until(lambda: bool(log.flight), "a try")
    log.fail()
    for number in (1, 2):
        await until(lambda: bool(log.flight), "the fact in flight")
        log.arrive()
        await facts_writer.drain()
        if number == 1:
            denials.add("req_2", caller(), "chat.completions", "m", 402, EXHAUSTED)
    assert [fact.request for fact in facts(log.topic)] == ["req_1", "req_2"]


async def test_a_refusal_says_who_was_refused_what_and_why() -> None:
    """Key, model, status, budget, and what it could have cost at which price."""
    log, clock = InstantLog(MemoryLog()), Watch()
    facts_writer = writer(log, clock)
    denied = Denied(
        "insufficient_quota",
        "exhausted",
        refused=Refused("insufficient_quota", budget="cap"),
        price=price_at(PRICES, MORNING),
        worst=120,
    )
    Denials(facts_writer, clock).add("req_1", caller(), "chat.completions", "m", 402, denied)
    await facts_writer.drain()
    assert facts(log.topic) == [
        RequestDenied(
            request="req_1",
            org="acme",
            project="web",
            key="key_1",
            model="m",
            endpoint="chat.completions",
            accounted_at=MORNING,
            status=402,
            code="insufficient_quota",
            reason="exhausted",
            budget="cap",
            price="m@1",
            worst=120,
        )
    ]
