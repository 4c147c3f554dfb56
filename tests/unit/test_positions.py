"""Waiting for a position: each is told when it is there, and gives up in its time."""

import asyncio
import random

import pytest

from commands.positions import Positions


async def test_who_waits_is_told_when_it_is_there() -> None:
    """Whatever the order in which they came, and not before."""
    positions, wanted = Positions(), list(range(1, 101))
    random.Random(1).shuffle(wanted)
    waiting = {position: asyncio.create_task(positions.wait_for(position)) for position in wanted}
    await asyncio.sleep(0)
    for reached in (0, 1, 50, 50, 100):
        positions.reached(reached)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sorted(position for position, task in waiting.items() if task.done()) == list(range(1, reached + 1))


async def test_patience_ends() -> None:
    """The others go on waiting; one that has given up is nobody's business any more."""
    positions = Positions()
    patient = asyncio.create_task(positions.wait_for(5))
    with pytest.raises(TimeoutError):
        await positions.wait_for(5, 0.001)
    cancelled = asyncio.create_task(positions.wait_for(5, 10))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    positions.reached(5)
    await patient
