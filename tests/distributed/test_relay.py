"""The relay: one control process at a time forwards the journal, whoever dies, and nobody has to guess."""

import asyncio
import json
import random
import signal
import time
from dataclasses import dataclass, field

import psycopg
import pytest

from projections.ports import CONTROL
from tests.distributed.house import House, Process, unique
from tests.http1 import Answer, Cut
from tests.waiting import eventually, until


async def leads(process: Process) -> bool:
    text = (await process.http.call("GET", "/metrics", seconds=5)).body.decode()
    return "tollhouse_relay_leading 1.0" in text


async def leader(house: House) -> Process:
    """The control process that forwards."""

    async def find() -> Process | None:
        for process in house.controls:
            if await leads(process):
                return process
        return None

    found = await eventually(find, bool)
    assert found is not None
    return found


@dataclass
class Orders:
    """Commands by many callers, each repeated under its key at another process until it is answered."""

    house: House
    mark: str
    answers: dict[str, Answer] = field(default_factory=dict)
    repeated: int = 0
    over: bool = False

    async def caller(self, number: int, rate: float) -> None:
        """Creates organizations at `rate` a second."""
        due = time.monotonic() + random.random() / rate
        while not self.over:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += 1 / rate
            await self.order(f"{self.mark}-{number}-{len(self.answers)}", number)

    async def order(self, org: str, number: int) -> None:
        headers = {"authorization": f"Bearer {self.house.admin_key}", "idempotency-key": org}
        while True:
            process = self.house.controls[number % len(self.house.controls)]
            try:
                answer = await process.http.call(
                    "POST", "/admin/v1/orgs", {"id": org, "name": org}, headers, seconds=15
                )
            except Cut:
                answer = None
            if answer is not None and answer.status < 500:
                self.answers[org] = answer
                return
            number += 1
            self.repeated += 1
            await asyncio.sleep(0.05)


def journal(house: House) -> list[tuple[int, bytes]]:
    """Every event of the journal with its position, in order."""
    with psycopg.connect(house.environ["TOLLHOUSE_POSTGRES"]) as connection:
        found = connection.execute("SELECT notification_id, state FROM events ORDER BY notification_id").fetchall()
    return [(position, bytes(body)) for position, body in found]


async def chain(house: House) -> tuple[list[tuple[int, bytes]], int]:
    """What readers of the topic accept, and how many records there are in all."""
    accepted: list[tuple[int, bytes]] = []
    records = await house.partition(0, CONTROL)
    for record in records:
        if record.position and record.previous == (accepted[-1][0] if accepted else 0):
            accepted.append((record.position, record.value))
    return accepted, len(records)


@pytest.mark.parametrize(
    ("rate", "seconds"), [pytest.param(200, 3, id="short"), pytest.param(500, 15, id="long", marks=pytest.mark.full)]
)
async def test_each_event_comes_once_whoever_dies(house: House, rate: int, seconds: float) -> None:
    """Under a stream of commands at two control processes, the one that forwards stands still, goes on while the other one has
    taken over, and the other is killed: what readers of the topic accept is the journal, event by event, in its order. Each
    command that was answered is in it once, though it was repeated."""
    await house.begin(controls=2, gatekeepers=0, gateways=0)
    orders = Orders(house, unique("o"))
    callers = [asyncio.create_task(orders.caller(number, rate / 50)) for number in range(50)]
    await until(lambda: len(orders.answers) > rate, "commands")
    first = await leader(house)
    first.child.signal(signal.SIGSTOP)
    second = house.controls[1 - house.controls.index(first)]
    assert await eventually(lambda: leads(second), bool)
    await asyncio.sleep(seconds / 3)
    first.child.signal(signal.SIGCONT)
    await asyncio.sleep(seconds / 3)
    await second.child.kill()
    await second.http.close()
    assert await eventually(lambda: leads(first), bool)
    await asyncio.sleep(seconds / 3)
    await second.start()
    orders.over = True
    await asyncio.gather(*callers)
    accepted, records = await chain(house)
    events = journal(house)
    print(
        f"\nrelay: {len(orders.answers)} commands, {orders.repeated} repeated, {records - len(accepted)} records ignored"
    )
    assert accepted == events
    assert {answer.status for answer in orders.answers.values()} == {201}
    made = [json.loads(body)["org"] for _, body in events if b"OrganizationCreated" in body]
    mine = [org for org in made if org.startswith(orders.mark)]
    assert len(mine) == len(set(mine))
    assert set(orders.answers) <= set(mine)


async def test_while_the_relay_stands_still_nobody_guesses(house: House) -> None:
    """The only control process stands still for five seconds: gateways know that their view is current, and go on; a command
    sent meanwhile is answered afterwards, and takes effect."""
    fake = await house.fake()
    await house.begin(gateways=2)
    org, model = unique("org"), unique("m")
    await house.model(model, fake.url, backend=unique("backend"))
    key = (await house.org(org))["main"]
    control = house.controls[0]
    control.child.signal(signal.SIGSTOP)
    try:
        revoking = asyncio.create_task(house.admin("POST", f"/orgs/{org}/keys/{key.id}/revoke"))
        until_then = time.monotonic() + 5
        while time.monotonic() < until_then:
            assert (await house.chat(key, model)).status == 200
            assert not [reason for gateway in house.gateways for reason in await gateway.reasons()]
        assert not revoking.done()
    finally:
        control.child.signal(signal.SIGCONT)
    await revoking
    await asyncio.sleep(1.0)  # for so long after its answer a revoked key may still be good, and no longer
    assert {(await house.chat(key, model)).code for _ in range(4)} == {"invalid_api_key"}
