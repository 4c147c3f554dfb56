"""Whoever leaves a stream before its backend answers ends it at once; whoever leaves a plain request does not."""

import asyncio

import pytest

from api.router.departure import Departure, Left
from api.router.exchange import Exchange
from commands.ports import NotSent
from domain.facts import RequestCompleted, RequestFailed, RequestUnconfirmed
from tests.unit.forward_house import ANSWER, Answered, House
from tests.waiting import until


@pytest.fixture
async def house() -> House:
    return House()


async def _asked(house: House, **fields: bool) -> "asyncio.Task[None]":
    """A request that its backend has, or is being connected to."""
    asking = asyncio.create_task(house.chat(**fields))
    await until(lambda: bool(house.sent), "the backend is asked")
    return asking


async def test_a_stream_left_before_it_is_answered_ends_at_once(house: House) -> None:
    """What was seen of it is charged: its input. It is asked for nowhere else."""
    house.answer = asyncio.CancelledError()
    asking = await _asked(house, stream=True)
    house.left.set()
    await asking
    fact = house.fact()
    assert isinstance(fact, RequestCompleted)
    assert (fact.estimated, fact.abandoned, [tried.error for tried in fact.tries]) == (True, True, ["caller_left"])
    assert (fact.usage.all_input > 0, fact.usage.all_output, 0 < fact.cost < fact.hold) == (True, 0, True)
    assert (house.status, house.out, len(house.sent)) == (499, [], 1)


async def test_a_stream_left_before_it_was_sent_cost_nothing(house: House) -> None:
    """Its backend was still being connected to."""
    house.answer = NotSent()
    asking = await _asked(house, stream=True)
    house.left.set()
    await asking
    fact = house.fact()
    assert isinstance(fact, RequestFailed)
    assert (fact.reason, [tried.error for tried in fact.tries]) == ("not_dispatched", ["caller_left"])


async def test_a_stream_left_before_it_is_its_turn_is_not_sent(house: House) -> None:
    """As of a caller who gave up while his request waited for a place, or for the log."""
    house.left.set()
    await house.chat(stream=True)
    fact = house.fact()
    assert isinstance(fact, RequestFailed)
    assert (fact.reason, [tried.error for tried in fact.tries]) == ("not_dispatched", ["caller_left"])
    assert (house.status, house.out, house.sent) == (499, [], [])


async def test_a_plain_request_that_is_left_is_waited_for(house: House) -> None:
    """So that what it cost is known."""
    house.left.set()
    house.answer = Answered(body=ANSWER)
    await house.chat()
    assert isinstance(house.fact(), RequestCompleted)


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
@pytest.mark.parametrize(("answer", "fact"), [(asyncio.CancelledError, RequestUnconfirmed), (NotSent, RequestFailed)])
async def test_what_the_end_of_the_process_leaves_unanswered_is_booked(
    house: House, answer: type[asyncio.CancelledError], fact: type, fields: dict[str, bool]
) -> None:
    """Its task is cancelled, and stays so; the books are written in the background."""
    house.answer = answer()
    asking = await _asked(house, **fields)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await house.writer.drain()
    assert isinstance(house.fact(), fact)
    assert [tried.error for tried in house.fact().tries] == ["not_ready"]


async def test_who_leaves_as_the_process_ends_changes_nothing(house: House) -> None:
    """Both at once: the end of the process is not forgotten."""
    departure = Departure(Exchange("req_1", {"headers": []}, house._receive, house._send))
    task = asyncio.current_task()
    assert task is not None
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def asked() -> "asyncio.Future[None]":
        answer.get_loop().call_soon(house.left.set)
        answer.get_loop().call_soon(task.cancel)
        return answer

    with pytest.raises(asyncio.CancelledError):
        await departure.unless(asked)
    assert task.uncancel() == 0
    await departure.close()


async def test_an_answer_that_came_first_is_not_lost(house: House) -> None:
    """Who leaves afterwards stops nothing that is awaited then."""
    departure = Departure(Exchange("req_1", {"headers": []}, house._receive, house._send))

    async def answered() -> str:
        await until(lambda: not departure.seen, "somebody is there")
        house.left.set()
        return "answer"

    assert await departure.unless(answered) == "answer"
    await until(lambda: departure.seen, "he has gone")
    await asyncio.sleep(0)
    with pytest.raises(Left):
        await departure.unless(answered)
    await departure.close()
