"""Stores and brokers that go away while workers feed: views stand still, say so, and are then what one clean run makes."""

import asyncio
import json

from infra.stack import Stack
from tests.controlgen import ControlTraffic
from tests.factgen import Traffic
from tests.waiting import eventually, until
from tests.workers.attack import watched
from tests.workers.house import House, asked, house

ORGS = [f"org-{number}" for number in range(20)]


async def test_postgres_is_away(stack: Stack) -> None:
    """Facts come before, while and after it is down; the worker says that it is not ready, and why; then it is exact."""
    async with house(stack) as made:
        traffic, control = Traffic(seed=5, orgs=ORGS).run(300), ControlTraffic(seed=5).run(30)
        url = await made.worker().start()
        async with watched(made) as seen:
            _write(made, traffic, control)
            await made.caught_up()
            await asyncio.to_thread(stack.stop, "postgres")
            _write(made, traffic.run(300), control.run(30))
            answer = await eventually(lambda: asyncio.to_thread(asked, url, "/readyz"), _refused)
            assert answer[0] == 503
            assert any("balances" in reason for reason in json.loads(answer[1])["reasons"])
            await asyncio.to_thread(stack.start, "postgres")
            _write(made, traffic.run(300), control.run(30))
            await made.caught_up()
        _exact(made)
        assert seen.ahead == []
        assert (await eventually(lambda: asyncio.to_thread(asked, url, "/readyz"), _accepted))[0] == 200


async def test_what_came_during_an_outage_is_read_again_though_nothing_comes_after_it(stack: Stack) -> None:
    """The log is silent after the outage: no new fact wakes the projection up."""
    async with house(stack) as made:
        await made.join()
        await asyncio.to_thread(stack.stop, "postgres")
        made.write(Traffic(seed=6, orgs=ORGS).run(100).log)
        await asyncio.sleep(2)
        await asyncio.to_thread(stack.start, "postgres")
        await made.caught_up()
        _exact(made)


async def test_one_store_that_is_away_does_not_keep_the_other_views_back(stack: Stack) -> None:
    """ClickHouse is down: balances and directory take in everything that comes meanwhile, more than any queue holds."""
    async with house(stack) as made:
        await made.join()
        traffic, control = Traffic(seed=7, orgs=ORGS), ControlTraffic(seed=7)
        _write(made, traffic.run(200), control.run(20))
        await made.caught_up()
        await asyncio.to_thread(stack.stop, "clickhouse")
        for _ in range(30):
            _write(made, traffic.run(100), control.run(3))
            await asyncio.sleep(0.05)
        await made.caught_up("balances", "directory")
        await asyncio.to_thread(stack.start, "clickhouse")
        await made.caught_up()
        _exact(made)


async def test_workers_that_change_places_while_a_store_is_away(stack: Stack) -> None:
    """One is killed and one joins while PostgreSQL is down: partitions move although nobody can tell their watermark."""
    async with house(stack) as made:
        workers = [await made.join() for _ in range(2)]
        traffic, control = Traffic(seed=8, orgs=ORGS).run(300), ControlTraffic(seed=8).run(30)
        _write(made, traffic, control)
        await made.caught_up("balances")
        joining = made.worker()
        await asyncio.to_thread(stack.stop, "postgres")
        await joining.spawn()
        await workers[0].kill()
        _write(made, traffic.run(300), control.run(30))
        await asyncio.sleep(8)
        await asyncio.to_thread(stack.start, "postgres")
        await made.caught_up()
        _exact(made)


async def test_the_broker_is_killed(stack: Stack) -> None:
    """It comes back on its data; the workers go on without being started again."""
    async with house(stack) as made:
        workers = [await made.join() for _ in range(2)]
        traffic, control = Traffic(seed=9, orgs=ORGS).run(300), ControlTraffic(seed=9).run(30)
        _write(made, traffic, control)
        await asyncio.to_thread(stack.kill, "kafka-1")
        await asyncio.sleep(3)
        await asyncio.to_thread(stack.start, "kafka-1")
        _write(made, traffic.run(300), control.run(30))
        await made.caught_up()
        _exact(made)
        assert [await worker.stop() for worker in workers] == [0, 0]


async def test_workers_can_be_told_to_end_while_the_broker_is_away(stack: Stack) -> None:
    """They cannot commit: exit 0 all the same, and whoever comes next reads from the watermarks."""
    async with house(stack) as made:
        workers = [await made.join() for _ in range(2)]
        traffic, control = Traffic(seed=10, orgs=ORGS).run(300), ControlTraffic(seed=10).run(30)
        _write(made, traffic, control)
        await until(lambda: bool(made.marks("balances")), "work is under way")
        await asyncio.to_thread(stack.kill, "kafka-1")
        assert [await worker.stop() for worker in workers] == [0, 0]
        await asyncio.to_thread(stack.start, "kafka-1")
        await made.join()
        await made.caught_up()
        _exact(made)


def _write(made: House, traffic: Traffic, control: ControlTraffic) -> None:
    made.write(traffic.log)
    made.write(control.log)


def _exact(made: House) -> None:
    assert all(result.equal for result in made.verified().values())
    assert made.parking.parked() == []
    assert made.errors() == []


def _refused(answer: tuple[int, str]) -> bool:
    return answer[0] == 503


def _accepted(answer: tuple[int, str]) -> bool:
    return answer[0] == 200
