"""Reconciliation: a backend's own record ends what is unconfirmed, at the price frozen in its admission."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from commands import reconcile
from commands.fact_writer import FactWriter
from commands.reconcile import Reconciliation, Served, read_served
from domain import price_list
from domain.errors import Invalid, NotFound, ViewBehind
from domain.facts import RequestAdmitted, RequestCompleted, RequestFailed, RequestUnconfirmed, Usage
from domain.price_list import PriceEntry, PriceList, Rates
from tests.factgen import MemoryLog, end
from tests.facts import NOON, TIMEOUT, admitted, completed, facts_of, log_of, opened, unconfirmed
from tests.fakes import InstantLog, LogBalances

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def rates(dollar_millionths: int) -> Rates:
    """All token classes at so many nano-dollars a token."""
    per_million = dollar_millionths * 10**6
    return Rates(
        input=per_million, output=per_million, cached_input=per_million // 2, cache_write=0, reasoning=per_million * 2
    )


HISTORY = tuple(PriceEntry(number=n, effective_from=LONG_AGO, rates=rates(n)) for n in (1, 2, 3))
PRICES: PriceList | None = PriceList(model="m", history=HISTORY)


class House:
    """Reconciliation over a log whose view has taken in all but `behind` facts."""

    def __init__(self, topic: MemoryLog, prices: PriceList | None = PRICES, behind: int = 0) -> None:
        self.topic, self._prices = topic, prices
        writer = FactWriter(InstantLog(topic), lambda: LONG_AGO, lambda prefix: f"{prefix}_x")
        balances = LogBalances(topic, lambda partition: len(topic.records[partition]) - behind)
        self.reconciliation = Reconciliation(balances, writer, self, topic.ends)
        self._before = len(topic.records[0])

    def state(self, kind: str, org: str, name: str) -> Any:
        return self._prices if (kind, org, name) == (price_list.KIND, "_", "m") else None

    async def run(
        self, *record: Served, backend: str | Sequence[str] = (), as_of: datetime | None = None
    ) -> tuple[int, int, int]:
        done = await self.reconciliation.run(record, [backend] if isinstance(backend, str) else backend, as_of)
        return done.completed, done.not_served, done.left

    def appended(self) -> list[Any]:
        return facts_of(self.topic)[self._before :]


def lost(attempt: str, **fields: Any) -> list[Any]:
    admission: RequestAdmitted = admitted(attempt, **fields)
    return [admission, unconfirmed(admission)]


async def test_what_the_record_has_is_completed_at_the_frozen_price() -> None:
    """Not at today's: the number of the price is in the admission. Classes are disjoint."""
    house = House(log_of(opened(0), *lost("a", price="m@2")))
    assert await house.run(Served("a", Usage(input=6, cached_input=4, output=15, reasoning=5))) == (1, 0, 0)
    (fact,) = house.appended()
    assert isinstance(fact, RequestCompleted)
    assert fact.usage == Usage(input=6, cached_input=4, output=15, reasoning=5)
    assert (fact.cost, fact.overrun, fact.source, fact.hold) == (
        6 * 2 + 4 * 1 + 15 * 2 + 5 * 4,
        False,
        "reconcile",
        100,
    )


async def test_what_may_have_been_under_way_when_the_record_was_taken_is_left() -> None:
    """An attempt past its deadline then is over; the backend may yet serve, and bill, any other one that the record lacks. What
    the record has is completed, whatever the time."""
    house = House(log_of(opened(0), *lost("a"), *lost("b"), *lost("c", accounted_at=NOON + timedelta(microseconds=1))))
    assert await house.run(Served("b", Usage(input=1, output=1)), as_of=NOON + TIMEOUT) == (1, 1, 1)
    assert [fact.attempt for fact in house.appended()] == ["a", "b"]
    assert await house.run(
        Served("b", Usage(input=1, output=1)), Served("c", Usage(input=1, output=1)), as_of=NOON
    ) == (1, 0, 0)


async def test_what_the_record_lacks_was_not_served() -> None:
    """A complete record is proof of that."""
    house = House(log_of(opened(0), *lost("a"), *lost("b")))
    assert await house.run(Served("b", Usage(input=1, output=1)), Served("elsewhere", Usage(input=1, output=1))) == (
        1,
        1,
        0,
    )
    first, second = house.appended()
    assert isinstance(first, RequestFailed)
    assert (first.attempt, first.reason, first.backend, second.attempt) == ("a", "not_served", "fake", "b")


async def test_another_backends_attempts_are_left_alone() -> None:
    """Its record is not this one; with no backend named, only those whose attempts the record has are concerned."""
    facts = [opened(0), *lost("a"), *lost("b", backend="other")]
    named = House(log_of(*facts))
    assert await named.run(backend="other") == (0, 1, 1)
    assert [fact.attempt for fact in named.appended()] == ["b"]
    unnamed = House(log_of(*facts))
    assert await unnamed.run(Served("a", Usage(input=1, output=1))) == (1, 0, 1)
    assert [fact.attempt for fact in unnamed.appended()] == ["a"]


async def test_an_attempt_that_may_have_gone_to_several_waits_for_the_records_of_all() -> None:
    """One that the record of one of them has was served there; one that it lacks may have been served elsewhere."""
    facts = [opened(0), *lost("a", others=("other",)), *lost("b", others=("other",))]
    one = House(log_of(*facts))
    assert await one.run(Served("b", Usage(input=1, output=1)), backend="other") == (1, 0, 1)
    assert [(fact.attempt, fact.backend) for fact in one.appended()] == [("b", "other")]
    both = House(log_of(*facts))
    assert await both.run(Served("b", Usage(input=1, output=1)), backend=["fake", "other"]) == (1, 1, 0)
    unnamed = House(log_of(*facts))
    assert await unnamed.run(Served("b", Usage(input=1, output=1))) == (0, 0, 2)


async def test_an_attempt_whose_loss_names_the_backend_went_nowhere_else() -> None:
    """The gateway that lost it knew."""
    admission = admitted("a", others=("other",))
    gone = end(admission, RequestUnconfirmed, reason="upstream_error", backend="other")
    assert await House(log_of(opened(0), admission, gone)).run(backend="fake") == (0, 0, 1)
    assert await House(log_of(opened(0), admission, gone)).run(backend="other") == (0, 1, 0)


async def test_what_is_not_unconfirmed_is_not_touched() -> None:
    """Open and completed attempts, in the record or not."""
    house = House(log_of(opened(0), admitted("open"), admitted("done"), completed(admitted("done"))))
    record = (Served("open", Usage(input=1, output=1)), Served("done", Usage(input=9, output=9)))
    assert await house.run(*record, backend="fake") == (0, 0, 0)
    assert house.appended() == []


async def test_a_cost_above_its_hold_is_booked_and_flagged() -> None:
    """The bound was wrong, whoever found out."""
    house = House(log_of(opened(0), *lost("a")))
    await house.run(Served("a", Usage(input=0, output=101)))
    (fact,) = house.appended()
    assert (fact.cost, fact.overrun) == (101, True)


async def test_without_a_price_it_cost_nothing() -> None:
    """As when it was admitted; a price that this view does not have is an error, not zero."""
    free = House(log_of(opened(0), *lost("a", price=None)), prices=None)
    await free.run(Served("a", Usage(input=5, output=5)))
    assert free.appended()[0].cost == 0
    unknown = House(log_of(opened(0), *lost("a")), prices=None)
    with pytest.raises(NotFound):
        await unknown.run(Served("a", Usage(input=5, output=5)))
    assert unknown.appended() == []


async def test_a_view_that_is_behind_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unconfirmed must be known up to now."""
    monkeypatch.setattr(reconcile, "_POLL_SECONDS", 0.0)
    house = House(log_of(opened(0), *lost("a")), behind=1)
    with pytest.raises(ViewBehind):
        await house.run(Served("a", Usage(input=5, output=5)))
    assert house.appended() == []


# -- records as backends write them


def test_figures_are_found_beside_the_id_or_inside_usage() -> None:
    """Lines without a request id are not ours; absent classes are zero, and each is told apart from what it is part of."""
    every = {
        "prompt_tokens": 100, "cached_tokens": 1, "cache_write_tokens": 2, "audio_input_tokens": 3, "image_input_tokens": 4,
        "completion_tokens": 50, "reasoning_tokens": 5, "audio_output_tokens": 6,
    }  # fmt: skip
    lines: list[dict[str, Any]] = [
        {"request_id": "a", "prompt_tokens": 3, "completion_tokens": 4, "model": "m"},
        {"request_id": "b", "usage": {"prompt_tokens": 5, "completion_tokens": 6, "reasoning_tokens": 2}},
        {"request_id": "c", **every},
        {"request_id": "d", "prompt_tokens": 7},
        {"prompt_tokens": 1},
        {"request_id": None},
    ]
    classes = {
        "cached_input": 1,
        "cache_write": 2,
        "audio_input": 3,
        "image_input": 4,
        "reasoning": 5,
        "audio_output": 6,
    }
    assert read_served(lines) == [
        Served("a", Usage(input=3, output=4)),
        Served("b", Usage(input=5, output=4, reasoning=2)),
        Served("c", Usage(input=90, output=39, **classes)),
        Served("d", Usage(input=7)),
    ]


@pytest.mark.parametrize(
    "line",
    [
        {"request_id": 7},
        {"request_id": "a"},
        {"request_id": "a", "completion_tokens": 4},
        {"request_id": "a", "usage": {"input_tokens": 9, "output_tokens": 4}},
        {"request_id": "a", "prompt_tokens": 5, "audio_input_tokens": 3, "image_input_tokens": 3},
        {"request_id": "a", "prompt_tokens": -1},
        {"request_id": "a", "completion_tokens": "3"},
        {"request_id": "a", "completion_tokens": 1.5},
        {"request_id": "a", "completion_tokens": True},
        {"request_id": "a", "usage": {"prompt_tokens": None}},
    ],
)
def test_a_bad_line_is_named(line: dict[str, Any]) -> None:
    """By its number, beginning with 1."""
    with pytest.raises(Invalid) as refused:
        read_served([{"request_id": "good", "prompt_tokens": 1, "completion_tokens": 1}, line])
    assert [error.field for error in refused.value.errors] == ["records[2]"]
