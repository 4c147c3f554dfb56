"""Reconciliation: what a backend served ends what is unconfirmed, at the price of the admission."""

from datetime import timedelta
from typing import Any

import pytest

from commands.reconcile import Reconciled, Reconciliation, Served, read_served
from domain.errors import Invalid, NotFound
from domain.facts import Fact, RequestCompleted, RequestFailed, RequestUnconfirmed, Usage, identity_of
from domain.price_list import PriceEntry, PriceList
from tests.factgen import MemoryLog, envelope
from tests.fakes import InstantLog, LogBalances
from tests.unit.pieces import MORNING, PARTITION, PRICES, Watch, admission, facts, rates, writer

DEARER = PriceEntry(number=2, effective_from=MORNING + timedelta(hours=1), rates=rates(7))


class Prices:
    def __init__(self, prices: PriceList | None) -> None:
        self.prices = prices

    def state(self, kind: str, org: str, name: str) -> Any:
        return self.prices if (kind, org, name) == ("price", "_", "m") else None


async def reconciled(
    record: list[Served], *past: Fact, backend: str | None = None, prices: PriceList | None = PRICES
) -> tuple[Reconciled, list[Any]]:
    """What reconciling after `past` answers, and what it wrote."""
    topic = MemoryLog()
    for number, fact in enumerate(past):
        topic.append(PARTITION, envelope(fact, MORNING, number))
    work = Reconciliation(LogBalances(topic), writer(InstantLog(topic), Watch()), Prices(prices))
    answer = await work.run(record, backend)
    return answer, facts(topic)[len(past) :]


def unconfirmed(request: str, **fields: Any) -> list[Fact]:
    admitted = admission(request, **fields)
    return [admitted, RequestUnconfirmed(**identity_of(admitted), reason="deadline", backend=admitted.backend)]


async def test_what_was_served_is_completed_and_what_was_not_has_failed() -> None:
    """The classes of tokens are made disjoint, and both facts name the backend."""
    answer, written = await reconciled([Served("req_1", 50, 20, 10, 5)], *unconfirmed("req_1"), *unconfirmed("req_2"))
    assert answer == Reconciled(completed=1, not_served=1)
    done, failed = written
    assert isinstance(done, RequestCompleted)
    assert done.usage == Usage(input=40, cached_input=10, output=15, reasoning=5)
    assert (done.cost, done.overrun, done.source, done.backend) == (70, False, "reconcile", "fake")
    assert isinstance(failed, RequestFailed)
    assert (failed.attempt, failed.reason, failed.backend) == ("req_2", "not_served", "fake")


async def test_the_price_is_the_one_of_the_admission() -> None:
    """A price that came into force meanwhile does not count."""
    prices = PriceList(model="m", history=(*PRICES.history, DEARER))
    for version, cost in (("m@1", 10), ("m@2", 70), (None, 0)):
        _, (done,) = await reconciled([Served("req_1", 5, 5)], *unconfirmed("req_1", price=version), prices=prices)
        assert (done.cost, done.price) == (cost, version)


async def test_a_cost_above_the_hold_is_an_overrun() -> None:
    """It is charged in full."""
    _, (done,) = await reconciled([Served("req_1", 100, 1)], *unconfirmed("req_1", hold=100))
    assert (done.cost, done.overrun) == (101, True)


async def test_only_the_backend_whose_record_it_is_is_touched() -> None:
    """What another one may have served is not failed for being absent."""
    past = [*unconfirmed("req_1", backend="fake"), *unconfirmed("req_2", backend="other")]
    answer, written = await reconciled([], *past, backend="fake")
    assert answer == Reconciled(completed=0, not_served=1)
    assert [fact.attempt for fact in written] == ["req_1"]


async def test_what_is_not_unconfirmed_is_not_touched() -> None:
    """An attempt under way ends by its own gateway, though the backend served it already."""
    answer, written = await reconciled([Served("req_1", 5, 5)], admission("req_1"))
    assert (answer, written) == (Reconciled(0, 0), [])


async def test_a_price_that_the_view_lacks_is_not_guessed() -> None:
    """`NotFound`, rather than a completion that costs nothing."""
    with pytest.raises(NotFound, match="m@1"):
        await reconciled([Served("req_1", 5, 5)], *unconfirmed("req_1"), prices=None)


def test_a_record_states_its_tokens_beside_the_id_or_inside_usage() -> None:
    """Lines without a request id are not ours."""
    lines = [
        {"request_id": "req_1", "prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1},
        {"prompt_tokens": "whatever"},
        {"request_id": "req_2", "usage": {"prompt_tokens": 4, "completion_tokens": 2, "reasoning_tokens": 1}},
    ]
    assert read_served(lines) == [Served("req_1", 3, 2, 1), Served("req_2", 4, 2, 0, 1)]


@pytest.mark.parametrize(
    "line",
    [
        {"request_id": 7, "prompt_tokens": 1},
        {"request_id": "req_1", "prompt_tokens": -1},
        {"request_id": "req_1", "prompt_tokens": 1.5},
        {"request_id": "req_1", "prompt_tokens": True},
        {"request_id": "req_1", "usage": {"prompt_tokens": None}},
    ],
)
def test_a_line_that_is_no_record_is_named(line: dict[str, Any]) -> None:
    """`Invalid` says which of the lines it is."""
    with pytest.raises(Invalid) as refused:
        read_served([{}, line])
    assert [error.field for error in refused.value.errors] == ["records[2]"]
