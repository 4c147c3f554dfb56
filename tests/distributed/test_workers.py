"""Several gateways that share a port: `tollhouse gateway --workers N`, as one installation and its operator see it."""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backend import Backend
from tests.distributed.house import House, Process, unique
from tests.http1 import Answer, Cut, Http
from tests.lab import Key
from tests.waiting import eventually, until

WORKERS = 3


@dataclass(frozen=True, slots=True)
class Begun:
    """The gateway that is several, and what its callers need."""

    shared: Process
    org: str
    key: Key
    model: str
    backend: str

    async def chat(self, number: int) -> list[Answer]:
        """The answers to `number` callers at once, each with a connection of his own."""

        async def one() -> Answer:
            async with Http(self.shared.url) as http:
                body = {"model": self.model, "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
                return await http.call(
                    "POST", "/v1/chat/completions", body, {"authorization": f"Bearer {self.key.secret}"}
                )

        return await asyncio.gather(*(one() for _ in range(number)))


async def begun(house: House, url: str) -> Begun:
    """An installation whose gateway is `WORKERS` that share a port, all of them taking requests; a key, and a model at `url`."""
    shared = house.make("gateway")
    shared.child.command += ["--workers", str(WORKERS)]
    house.gateways.append(shared)
    await house.begin(gateways=0)
    ready = await eventually(lambda: asked(shared, "/readyz"), _all_ready)
    assert _all_ready(ready), ready.body
    org, model, backend = unique("org"), unique("model"), unique("backend")
    await house.model(model, url, backend=backend)
    key = (await house.org(org))["main"]
    await house.budget(org, "cap", "5")
    return Begun(shared, org, key, model, backend)


async def under_way(made: Begun, fake: Backend) -> tuple[asyncio.Event, list[asyncio.Task[list[Answer]]]]:
    """Twelve requests at the backend, which answers none of them before the event is set, and their callers."""
    gate = fake.gates[made.model] = asyncio.Event()
    callers = [asyncio.create_task(made.chat(1)) for _ in range(12)]
    await until(lambda: len(fake.received) == 12, "all are dispatched")
    return gate, callers


def _all_ready(answer: Answer) -> bool:
    return answer.status == 200 and set(answer.json()["workers"].values()) == {"ready"}


async def asked(shared: Process, path: str) -> Answer:
    """A connection of its own for each question: whichever worker takes it answers."""
    while True:
        async with Http(shared.url) as http:
            try:
                return await http.call("GET", path, seconds=5.0)
            except Cut:  # a worker that stands still took it
                continue


def workers_of(shared: Process) -> list[int]:
    """Ids of its workers' processes."""
    main = shared.child.pid
    return [int(pid) for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether a process has ended, with its last thread: its sockets are closed then."""
    try:
        ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return ended and len(os.listdir(f"/proc/{pid}/task")) == 1
    except OSError:
        return True


async def figures(shared: Process, name: str) -> dict[str, float]:
    """Samples of a metric by worker, added up over other labels."""
    found: dict[str, float] = {}
    for line in (await asked(shared, "/metrics")).body.decode().splitlines():
        if line.startswith(f"{name}{{"):
            worker = line.partition('worker="')[2].partition('"')[0]
            found[worker] = found.get(worker, 0.0) + float(line.split()[-1])
    return found


async def test_each_worker_takes_requests_and_any_of_them_tells_of_all(house: House) -> None:
    """Callers are spread over the workers; whoever is asked for metrics has the figures of all, and they add up; what was served
    is on the books once."""
    hello = await house.hello()
    made = await begun(house, hello.url)
    answers = await made.chat(40)
    assert {answer.status for answer in answers} == {200}
    for _ in range(5):
        text = (await asked(made.shared, "/metrics")).body.decode()
        assert text.count("# TYPE tollhouse_http_requests_total counter") == 1
    by_worker = await figures(made.shared, "tollhouse_http_requests_total")
    assert sum(by_worker.values()) == 40
    assert len([count for count in by_worker.values() if count]) > 1
    assert await figures(made.shared, "tollhouse_worker_up") == dict.fromkeys(map(str, range(WORKERS)), 1.0)
    assert len({line["request_id"] for line in hello.served()}) == 40


async def test_any_of_them_tells_how_all_see_a_backend(house: House) -> None:
    """Requests at a backend by way of several workers: whoever is asked has them all, and each worker's beside them."""
    fake = await house.fake()
    made = await begun(house, fake.url)
    gate, callers = await under_way(made, fake)
    for _ in range(5):
        doc = (await asked(made.shared, "/backendz")).json()
        assert doc["backends"][made.backend]["in_flight"] == 12
        # A worker that none of them came to knows nothing of the backend.
        by_worker = [seen[made.backend]["in_flight"] if made.backend in seen else 0 for seen in doc["workers"].values()]
        assert (len(by_worker), sum(by_worker)) == (WORKERS, 12)
        assert len([count for count in by_worker if count]) > 1
    gate.set()
    assert {answer.status for caller in callers for answer in await caller} == {200}


async def test_all_workers_hold_against_one_budget(house: House) -> None:
    """Callers at all workers at once, while nothing ends: what is admitted holds no more than a hard budget has."""
    fake = await house.fake()
    made = await begun(house, fake.url)
    org, limit = made.org, "0.00008"
    await house.budget(org, "small", limit)
    gate = fake.gates[made.model] = asyncio.Event()
    callers = [asyncio.create_task(made.chat(1)) for _ in range(30)]
    await until(lambda: sum(caller.done() for caller in callers) + len(fake.received) == 30, "all are in or out")
    held = [fact.data["hold"] for fact in await house.facts(org) if fact.type == "RequestAdmitted"]
    gate.set()
    statuses = [answer.status for caller in callers for answer in await caller]
    assert 1 < len(held) == statuses.count(200) < 30
    assert sum(held) <= 80_000 < sum(held) + min(held)
    assert {"0", "1", "2"} == set(await figures(made.shared, "tollhouse_http_requests_total"))


async def test_a_worker_that_dies_is_started_again_and_meanwhile_nobody_meets_it(house: House) -> None:
    """kill -9 of one of them: callers are served by the others, none is refused, the port says that it is ready all the time,
    and soon there are as many as before."""
    fake = await house.fake()
    made = await begun(house, fake.url)
    before = workers_of(made.shared)
    os.kill(before[0], signal.SIGKILL)
    await until(lambda: gone(before[0]), "it is gone")

    async def served_and_told() -> Answer:
        assert {answer.status for answer in await made.chat(6)} == {200}
        told = await asked(made.shared, "/readyz")
        assert told.status == 200, told.body
        return told

    assert _all_ready(await eventually(served_and_told, _all_ready))
    after = workers_of(made.shared)
    assert len(after) == WORKERS
    assert set(before) - set(after) == {before[0]}
    assert made.shared.says("starting it again")


async def test_a_worker_that_stands_still_makes_the_port_not_ready(house: House) -> None:
    """The kernel still gives it callers: whoever else is asked says so, and counts it out; once it goes on, all is well."""
    fake = await house.fake()
    made = await begun(house, fake.url)
    still = workers_of(made.shared)[0]
    os.kill(still, signal.SIGSTOP)
    try:
        told = await eventually(lambda: asked(made.shared, "/readyz"), lambda answer: answer.status == 503)
        assert (told.status, told.json()["status"]) == (503, "not_ready")
        assert [why for why in told.json()["reasons"] if why.endswith("does not answer")] == told.json()["reasons"]
        assert sorted((await figures(made.shared, "tollhouse_worker_up")).values()) == [0.0, 1.0, 1.0]
    finally:
        os.kill(still, signal.SIGCONT)
    ready = await eventually(lambda: asked(made.shared, "/readyz"), _all_ready)
    assert _all_ready(ready), ready.body


async def test_sigterm_drains_every_worker(house: House) -> None:
    """Streams under way at all workers come to their end, newcomers are not taken, the exit code is 0 and nothing runs on."""
    fake = await house.fake()
    made = await begun(house, fake.url)
    gate, callers = await under_way(made, fake)
    made.shared.child.terminate()

    async def refused() -> bool:
        async with Http(made.shared.url) as http:
            try:
                return not await http.call("GET", "/healthz")
            except Cut:
                return True

    assert await eventually(refused, bool)
    with pytest.raises(TimeoutError):
        await made.shared.child.main_ended(2)
    assert len(workers_of(made.shared)) == WORKERS
    gate.set()
    assert {answer.status for caller in callers for answer in await caller} == {200}
    assert await made.shared.child.ended() == 0
    assert [fact.type for fact in await house.facts(made.org)].count("RequestCompleted") == 12


async def test_workers_end_with_the_process_that_started_them(house: House) -> None:
    """kill -9 of it alone: no worker goes on without somebody who would start it again."""
    fake = await house.fake()
    made = await begun(house, fake.url)
    workers = workers_of(made.shared)
    await made.shared.child.kill_main()
    await until(lambda: all(map(gone, workers)), "the workers ended")


async def test_a_port_that_somebody_has_is_not_shared_with_him(house: House) -> None:
    """A second `gateway --workers` on the same address, or on an ordinary gateway's, ends with the reason."""
    fake = await house.fake()
    made = await begun(house, fake.url)
    address = made.shared.url.removeprefix("http://")
    for more in ([], ["--workers", "2"]):
        second = house.make("gateway")
        second.child.command[2:] = ["--listen", address, *more]
        house.others.append(second)
        await second.child.spawn()
        assert await second.child.main_ended() == 1
        assert second.says(f"cannot listen on {address}")
