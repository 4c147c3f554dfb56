"""Places for requests under way: few wait, the rest is shed, and none is lost."""

import asyncio

import pytest

from api.router.errors import RouterError
from api.router.places import WAITING, Places
from tests.waiting import until

FOR_EVER = 3600.0


async def waits(places: Places) -> "asyncio.Task[None]":
    """A request that waits."""
    waiting, task = places.waiting, asyncio.create_task(places.wait())
    await until(lambda: places.waiting > waiting, "one more who waits")
    return task


async def test_beyond_the_places_some_wait_and_the_rest_is_shed() -> None:
    """One for each ten places; those beyond are told at once."""
    places = Places(2 * WAITING, FOR_EVER)
    assert all(places.take() for _ in range(2 * WAITING))
    assert not places.take()
    waiting = [await waits(places), await waits(places)]
    with pytest.raises(RouterError) as refused:
        await asyncio.wait_for(places.wait(), 5)
    assert (refused.value.code, places.waiting) == ("overloaded", 2)
    for task in waiting:
        places.leave()
        await task
    assert (places.taken, places.waiting) == (2 * WAITING, 0)


async def test_who_waits_goes_before_who_comes() -> None:
    """In the order of coming; a place that is given on is never free in between."""
    places = Places(2 * WAITING, FOR_EVER)
    for _ in range(2 * WAITING):
        places.take()
    first, second = await waits(places), await waits(places)
    places.leave()
    assert not places.take()
    await first
    assert not second.done()
    places.leave()
    await second


async def test_who_waited_too_long_is_shed() -> None:
    """And leaves the queue: the place that comes free later is for somebody else."""
    places = Places(1, 0.001)
    assert places.take()
    with pytest.raises(RouterError, match="try again"):
        await places.wait()
    assert places.waiting == 0
    places.leave()
    assert places.take()


@pytest.mark.parametrize("given", [False, True])
async def test_who_leaves_while_waiting_takes_no_place(given: bool) -> None:
    """Neither before a place was given to it nor in the moment after."""
    places = Places(1, FOR_EVER)
    places.take()
    task = await waits(places)
    if given:
        places.leave()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if not given:
        places.leave()
    assert (places.taken, places.waiting) == (0, 0)


async def test_a_place_goes_past_who_has_just_left() -> None:
    """To the next one, though the first was still in the queue."""
    places = Places(2 * WAITING, FOR_EVER)
    for _ in range(2 * WAITING):
        places.take()
    gone, next_ = await waits(places), await waits(places)
    gone.cancel()
    await asyncio.sleep(0)
    places.leave()
    await next_
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (places.taken, places.waiting) == (2 * WAITING, 0)
