"""Leading: the work runs while the lease is held, and at no other time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event

import pytest

from commands.leading import Leader
from domain.errors import Unavailable
from tests.waiting import until


class FakeLease:
    """Answers as told: `held`, or `Unavailable` while it is `away`, or nothing while it is `stuck`."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds
        self.held, self.away, self.released, self.asked = True, False, False, 0
        self.answering = Event()
        self.answering.set()

    def hold(self) -> bool:
        self.asked += 1
        self.answering.wait(5)
        if self.away:
            raise Unavailable("down")
        return self.held

    def release(self) -> None:
        self.released = True


class Work:
    def __init__(self) -> None:
        self.running, self.starts = False, 0

    async def __call__(self) -> None:
        self.running, self.starts = True, self.starts + 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running = False


@asynccontextmanager
async def led(lease: FakeLease, work: Work) -> AsyncIterator[Leader]:
    leader = Leader(lease, work)
    task = asyncio.create_task(leader.run())
    yield leader
    task.cancel()
    lease.answering.set()
    await asyncio.wait([task])


async def test_the_work_goes_on_while_the_lease_is_renewed() -> None:
    """Many renewals, one start; at the end the lease is given up and the work is over."""
    lease, work = FakeLease(), Work()
    async with led(lease, work) as leader:
        await until(lambda: lease.asked > 8, "renewals")
        assert leader.leading
    assert work.starts == 1
    assert not work.running
    assert lease.released


async def test_nobody_works_without_the_lease() -> None:
    """Somebody else has it: it is asked for again and again, and taken when it is free."""
    lease, work = FakeLease(), Work()
    lease.held = False
    async with led(lease, work) as leader:
        await until(lambda: lease.asked > 3, "questions")
        assert work.starts == 0
        lease.held = True
        await until(lambda: leader.leading and work.running, "the lead")


async def test_a_lost_lease_ends_the_work() -> None:
    """Another one took it over: the work ends, and nothing is given up that is not ours."""
    lease, work = FakeLease(), Work()
    async with led(lease, work) as leader:
        await until(lambda: work.running, "the lead")
        lease.held = False
        await until(lambda: not work.running, "the end")
        assert not leader.leading
    assert not lease.released


@pytest.mark.parametrize("how", ["away", "stuck"])
async def test_a_lease_that_cannot_be_renewed_is_used_to_its_end_only(how: str) -> None:
    """The database is down, or does not answer: the work goes on until the lease is over, then ends; later it begins anew."""
    lease, work = FakeLease(), Work()
    async with led(lease, work):
        await until(lambda: work.running, "the lead")
        if how == "away":
            lease.away = True
        else:
            lease.answering.clear()
        asked = lease.asked
        await until(lambda: lease.asked > asked, "a renewal that fails")
        await until(lambda: not work.running, "the end")
        lease.away = False
        lease.answering.set()
        await until(lambda: work.starts == 2, "the lead again")


async def test_a_failure_of_the_work_is_raised() -> None:
    """A bug in the work ends the leader; the lease is given up for another process."""
    lease = FakeLease()

    async def broken() -> None:
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        await Leader(lease, broken).run()
    assert lease.released
