"""`tollhouse worker`: every view is what a clean run of the log makes of it, and the process tells the truth about itself."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from infra.stack import Stack
from tests.child import Child
from tests.controlgen import ControlTraffic
from tests.factgen import Traffic
from tests.lab import TOLLHOUSE
from tests.waiting import eventually, until
from tests.workers.house import NAMES, asked, figures, house, now


async def test_one_worker_feeds_every_view(stack: Stack) -> None:
    """All four views hold what one clean run makes of the log, nothing is parked, and the figures say so."""
    async with house(stack) as made:
        made.write(Traffic(seed=1).run(300).log)
        made.write(ControlTraffic(seed=1).run(100).log)
        worker = made.worker()
        url = await worker.start()
        await made.caught_up()
        assert all(result.equal for result in made.verified().values())
        assert made.parking.parked() == []
        assert asked(url, "/healthz")[0] == 200
        assert await asyncio.to_thread(asked, url, "/readyz") == (200, '{"status":"ready","reasons":[]}')
        lags = await eventually(lambda: asyncio.to_thread(figures, url, "tollhouse_projection_lag_events"), _nothing)
        assert lags == dict.fromkeys(NAMES, 0.0)
        applied = figures(url, "tollhouse_projection_applied_events")
        assert applied["usage"] == sum(made.logs["tollhouse.facts.v1"].ends())
        assert await worker.stop() == 0
        assert made.errors() == []


def _nothing(lags: dict[str, float]) -> bool:
    return len(lags) == len(NAMES) and not any(lags.values())


async def test_told_to_end_it_commits_what_is_applied_and_leaves_the_group(stack: Stack) -> None:
    """SIGTERM in the middle of work: exit 0, Kafka's offsets are the watermarks, and the other worker has its partitions long
    before a session of the dead would be over; together they have everything."""
    async with house(stack) as made:
        traffic = Traffic(seed=2, orgs=[f"org-{number}" for number in range(30)]).run(4000)
        first = await made.join()
        made.write(traffic.log)
        await until(lambda: bool(made.marks("balances")), "work is under way")
        assert await first.stop() == 0
        marks = [made.marks("balances"), made.marks("usage")]
        for partition in range(12):
            at = made.committed().get(("tollhouse.facts.v1", partition), 0)
            assert at == min(view[partition].offset if partition in view else 0 for view in marks)
        await made.join()
        assert await made.caught_up("balances", "usage") < 60
        assert all(result.equal for result in made.verified().values())
        assert made.errors() == []


async def test_the_stores_decide_where_reading_begins(stack: Stack) -> None:
    """The group's offsets in Kafka are at the end, and the databases are new: everything is read from the beginning."""
    async with house(stack) as made:
        made.write(Traffic(seed=3).run(200).log)
        made.write(ControlTraffic(seed=3).run(40).log)
        worker = await made.join()
        await made.caught_up()
        assert await worker.stop() == 0
        committed = made.committed()
        assert sum(committed.values()) == sum(sum(log.ends()) for log in made.logs.values())
        made.forget_views()
        assert made.behind("balances") > 0
        worker = await made.join()
        await made.caught_up()
        assert all(result.equal for result in made.verified().values())
        assert await worker.stop() == 0
        assert made.committed() == committed


async def test_it_waits_for_what_it_needs_and_says_for_what(stack: Stack) -> None:
    """PostgreSQL is down: no ready line, a line that names it; once it is up the worker goes on by itself. Told to end while
    it waits, it ends."""
    async with house(stack) as made:
        stack.stop("postgres")
        patient, impatient = made.worker(), made.worker()
        await patient.spawn()
        await impatient.spawn()
        for worker in (patient, impatient):
            await until(lambda worker=worker: "waiting for PostgreSQL" in worker.log.read_text(), "it says so")  # type: ignore[misc]
        assert await impatient.stop() == 0
        stack.start("postgres")
        made.write(Traffic(seed=4).run(20).log)
        await made.caught_up("balances")
        assert await patient.stop() == 0


async def test_missing_topics_are_awaited_with_the_way_to_make_them(stack: Stack) -> None:
    """Faust would make them with one partition, or flood the log."""
    async with house(stack) as made:
        made.delete_topics()
        worker = made.worker()
        await worker.spawn()
        await until(lambda: "tollhouse bootstrap" in worker.log.read_text(), "it says what to do")
        assert await worker.stop() == 0
        assert not made.topics()


SETTINGS = {
    "TOLLHOUSE_KAFKA": "127.0.0.1:1",
    "TOLLHOUSE_POSTGRES": "postgresql://127.0.0.1:1/nowhere",
    "TOLLHOUSE_CLICKHOUSE": "http://127.0.0.1:1",
    "TOLLHOUSE_REDIS": "redis://127.0.0.1:1",
    "TOLLHOUSE_SECRET": "s" * 32,
}


@pytest.mark.parametrize("missing", SETTINGS)
async def test_a_missing_setting_ends_the_start(tmp_path: Path, missing: str) -> None:
    """Exit 2, and its name."""
    environ = {**os.environ, **SETTINGS}
    del environ[missing]
    worker = Child([TOLLHOUSE, "worker", "--listen", "127.0.0.1:0"], tmp_path / "log", tmp_path, environ)
    await worker.spawn()
    assert await worker.ended() == 2
    assert missing in worker.log.read_text()


async def test_the_product_feeds_views_and_keeps_the_gate(stack: Stack) -> None:
    """`tollhouse worker` itself: its views are exact; it is not ready, because no control process lets it open the gate. It
    keeps no files where it was started."""
    async with house(stack) as made:
        traffic = Traffic(seed=5)
        traffic.now = now()  # else the keeper would end what is open and long overdue
        made.write(traffic.run(100).log)
        worker = made.product()
        await worker.spawn()
        await made.caught_up()
        assert all(result.equal for result in made.verified().values())
        await until(lambda: "opening it" in worker.log.read_text(), "the gatekeeper is at work")
        assert await worker.stop() == 0
        assert [path.name for path in made.folder.iterdir()] == ["worker-0.log"]


async def test_two_workers_share_the_partitions(stack: Stack) -> None:
    """Each has some, together all; each says so."""
    async with house(stack) as made:
        urls = [await made.worker().start() for _ in range(2)]
        shares = await eventually(lambda: asyncio.to_thread(_shares, urls), lambda found: sorted(found) == [6.0, 7.0])
        assert sorted(shares) == [6.0, 7.0]
        for url in urls:
            answer = await eventually(lambda url=url: asyncio.to_thread(asked, url, "/readyz"), _ready)  # type: ignore[misc]
            assert json.loads(answer[1]) == {"status": "ready", "reasons": []}


def _ready(answer: tuple[int, str]) -> bool:
    return answer[0] == 200


def _shares(urls: list[str]) -> list[float]:
    lines = [line for url in urls for line in asked(url, "/metrics")[1].splitlines()]
    return [float(line.split()[1]) for line in lines if line.startswith("tollhouse_worker_partitions")]
