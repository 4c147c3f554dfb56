"""P5 on two gateways: once a command that takes something away has answered, nothing that begins a second later succeeds, and a
gateway that cannot know says so."""

import time
from itertools import cycle, islice
from urllib.parse import urlsplit

import pytest

from tests.backend import Backend
from tests.distributed.house import House, unique
from tests.distributed.switch import switch
from tests.http1 import Answer
from tests.lab import Key
from tests.pressure import Pressure, pressure
from tests.waiting import eventually, until

BOUND = 1.0
"""Seconds."""

AFTER = 200
"""Requests that begin later than that, at least."""

CODES = {
    "/orgs/{org}/keys/{key}/revoke": (401, "invalid_api_key"),
    "/orgs/{org}/suspend": (403, "organization_suspended"),
    "/backends/{backend}/kill": (503, "no_backend"),
}


class Scene:
    """An organization under a budget that lasts, and its model."""

    def __init__(self, house: House, fake: Backend) -> None:
        self.house, self.fake = house, fake
        self.org, self.model, self.backend = unique("org"), unique("m"), unique("backend")
        self.key = Key("", "")

    async def make(self) -> "Scene":
        await self.house.model(self.model, self.fake.url, backend=self.backend)
        self.key = (await self.house.org(self.org))["main"]
        await self.house.budget(self.org, "cap", "1000")
        return self

    async def take(self, path: str) -> float:
        """Carries out a command; when it answered."""
        await self.house.admin("POST", path.format(org=self.org, key=self.key.id, backend=self.backend))
        return time.monotonic()


async def late(load: Pressure, answered: float) -> list[Answer]:
    """The answers of requests that began later than the bound."""
    await until(lambda: len(load.begun_after(answered + BOUND)) >= AFTER, "requests after the bound")
    return load.begun_after(answered + BOUND)


def last_success(load: Pressure) -> float:
    """When the last request that succeeded began."""
    return max(answer.began for answer in load.answers if answer.status == 200)


async def take_under_load(house: House, fake: Backend, path: str) -> float:
    """Seconds from the command's answer to the beginning of the last request that succeeded."""
    scene = await Scene(house, fake).make()
    async with pressure(house, scene.key, scene.model) as load:
        await load.of(200, 50)
        answered = await scene.take(path)
        after = await late(load, answered)
    assert {(answer.status, answer.code) for answer in after} == {CODES[path]}
    assert not load.cuts
    assert not {answer.id for answer in after} & set(fake.ids)
    return last_success(load) - answered


@pytest.mark.parametrize("rounds", [len(CODES), pytest.param(50, marks=pytest.mark.full)])
async def test_nothing_that_begins_a_second_later_succeeds(house: House, rounds: int) -> None:
    """Under load at two gateways the command answers; every request that begins more than a second later is refused by both
    with its code, and reaches no backend. Each kind of command in turn."""
    fake = await house.fake()
    await house.begin(gateways=2)
    last = [await take_under_load(house, fake, path) for path in islice(cycle(CODES), rounds)]
    print(f"\nP5, {rounds} of {rounds}: the last success began {max(last) * 1000:.0f} ms after the answer")


async def test_a_gateway_that_is_cut_off_refuses(house: House) -> None:
    """One of two gateways is cut off from Kafka, by a cable that swallows everything; a key is revoked. The other gateway refuses
    the key; the one cut off is not ready, and refuses everything, until it is back and knows."""
    fake = await house.fake()
    broker = urlsplit(f"//{house.environ['TOLLHOUSE_KAFKA']}").port
    async with switch(broker, kafka=True) as cable:
        house.gateways.append(house.make("gateway", TOLLHOUSE_KAFKA=f"127.0.0.1:{cable.port}"))
        house.gateways.append(house.make("gateway"))
        await house.begin(gateways=0)
        scene = await Scene(house, fake).make()
        other = (await house.org(unique("org")))["main"]
        apart, whole = (gateway.http for gateway in house.gateways)
        async with pressure(house, scene.key, scene.model) as load:
            await load.of(200, 50)
            cable.passing.clear()
            cut = time.monotonic()
            answered = await scene.take("/orgs/{org}/keys/{key}/revoke")
            await until(lambda: len(load.begun_after(answered + BOUND)) >= AFTER, "requests after the bound")
            after = load.begun_after(answered + BOUND)
            reasons = await house.gateways[0].reasons()
            refused = await house.chat(other, scene.model, http=apart)
            served = await house.chat(other, scene.model, http=whole)
            cable.passing.set()  # answers that were under way at the gateway cut off keep their last byte until here
        print(f"\nP5: the last success began {last_success(load) - cut:.2f} s after the cut")
        assert {(answer.status, answer.code) for answer in after} == {(401, "invalid_api_key"), (503, "not_ready")}
        assert any("control topic" in reason for reason in reasons)
        assert (refused.status, refused.code) == (503, "not_ready")
        assert served.status == 200
        assert not load.cuts
        back = await eventually(lambda: house.chat(other, scene.model, http=apart), lambda answer: answer.status == 200)
        assert back.status == 200
        assert (await house.chat(scene.key, scene.model, http=apart)).code == "invalid_api_key"
