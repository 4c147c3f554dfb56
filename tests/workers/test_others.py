"""What others do to the views while workers feed them: rebuild and switch them, retry and drop what is parked; and a worker that
stood still and does not know that its partitions are somebody else's."""

import asyncio
import os
import signal

from infra.stack import Stack
from tests.controlgen import ControlTraffic
from tests.factgen import Traffic
from tests.waiting import until
from tests.workers.attack import newer_release, poison, watched
from tests.workers.house import NAMES, House, house

ORGS = [f"org-{number}" for number in range(20)]


async def test_views_that_another_process_rebuilds_are_fed_on(stack: Stack) -> None:
    """Each view is rebuilt and switched while facts come: workers go on with the new version, from where that is."""
    async with house(stack) as made:
        for _ in range(2):
            await made.join()
        traffic, control = Traffic(seed=11, orgs=ORGS).run(500), ControlTraffic(seed=11).run(60)
        _write(made, traffic, control)
        await made.caught_up()
        async with watched(made) as seen:
            for name in NAMES:
                _write(made, traffic.run(200), control.run(10))
                await asyncio.to_thread(made.rebuilder().rebuild, name)
                _write(made, traffic.run(50), control.run(5))
            await made.caught_up()
        assert [made.stores[name].live() for name in NAMES] == [2, 2, 2, 2]
        assert all(result.equal for result in made.verified().values())
        assert seen.ahead == []
        assert made.errors() == []


async def test_a_worker_that_stood_still_changes_nothing_when_it_goes_on(stack: Stack) -> None:
    """It is stopped in the middle of work for longer than its session; another one has its partitions when it wakes up with
    parcels in its hands."""
    async with house(stack) as made:
        traffic = Traffic(seed=12, orgs=ORGS).run(4000)
        sleeper = await made.join()
        made.write(traffic.log)
        await until(lambda: bool(made.marks("usage")), "work is under way")
        os.kill(sleeper.pid, signal.SIGSTOP)
        await made.join()
        await made.caught_up("balances", "usage")
        made.write(traffic.run(100).log)
        os.kill(sleeper.pid, signal.SIGCONT)
        made.write(traffic.run(300).log)
        await made.caught_up("balances", "usage")
        assert await sleeper.stop() == 0
        made.write(traffic.run(100).log)
        await made.caught_up("balances", "usage")
        assert all(result.equal for result in made.verified().values())
        assert [line for line in made.errors() if "keepalive" not in line] == []  # Faust sees that it stood still


async def test_an_organization_that_is_parked_stays_so_wherever_its_partition_goes(stack: Stack) -> None:
    """The worker that parked it dies: the next one parks its later events too, in order. Dropped by an admin, it goes on."""
    async with house(stack) as made:
        traffic = Traffic(seed=13, orgs=["org-3", "org-5"]).run(50)
        first = await made.join()
        at = poison(traffic, "org-3")
        made.write(traffic.log)
        await made.caught_up()
        await first.kill()
        await made.join()
        made.write(traffic.run(50).log)
        await made.caught_up()
        parked = made.parking.parked("balances")
        assert parked[0].record.offset == at
        assert {one.org for one in parked} == {"org-3"}
        expected = [
            r.offset for r in made.logs["tollhouse.facts.v1"].all() if r.offset >= at and b'"org":"org-3"' in r.value
        ]
        assert [one.record.offset for one in parked] == expected
        for name in ("balances", "usage"):
            made.engine(name).drop(made.parking.parked(name)[0].id)
        assert made.parking.parked() == []
        made.write(traffic.run(50).log)
        await made.caught_up()
        await until(lambda: not made.parking.parked(), "what was held back meanwhile is applied")
        with newer_release():  # it can read what was dropped, and leaves it out all the same
            assert all(result.equal for result in made.verified().values())
        assert made.errors() == []


def _write(made: House, traffic: Traffic, control: ControlTraffic) -> None:
    made.write(traffic.log)
    made.write(control.log)
