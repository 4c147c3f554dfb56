"""Two hundred clients on the limits of their organization, at two gateways on one Redis.

When a request was admitted is known from outside to the time between its first byte, which its client sent, and its arrival at
the backend. So what lies in a window for certain is counted for each window, and what was under way for certain at each moment:
neither may ever be above the limit, not by one.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests.backend import Backend, Received, backend
from tests.distributed.house import House, unique
from tests.fairness import jain
from tests.http1 import Answer
from tests.lab import Key, Lab
from tests.waiting import until

CLIENTS, GREEDY = 200, 10
MINUTE = 60.0
REQUESTS, TOKENS, CONCURRENT = 600, 12_000, 10
LIMITS = {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS}
AFTERWARDS = 300
"""Refusals by the limit that the short form waits for."""


@dataclass
class Metered(Backend):
    """Lets each request take a moment, and keeps when it came and when it was about to be answered."""

    under_way: dict[str, tuple[float, float]] = field(default_factory=dict)

    async def _gate(self, request: Received) -> None:
        came = time.monotonic()
        await asyncio.sleep(0.03)
        self.under_way[request.id] = came, time.monotonic()


@dataclass
class Crowd:
    """One client a key. Ten ask again at once; the others once in four seconds: more than their share."""

    house: House
    keys: list[Key]
    model: str
    answers: list[tuple[int, Answer]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """By the limit in the way."""

    async def client(self, number: int, over: asyncio.Event) -> None:
        pause = 0.05 if number < GREEDY else 4.0
        await _pause(over, pause * number / CLIENTS)
        for turn in count(number):
            if over.is_set():
                return
            http = self.house.gateways[turn % len(self.house.gateways)].http
            answer = await self.house.chat(self.keys[number], self.model, http=http, max_tokens=16)
            self.answers.append((number, answer))
            if answer.status == 429:
                self.refused[answer.json()["error"]["limit"]["name"]] += 1
            await _pause(over, pause)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        over = asyncio.Event()
        tasks = [asyncio.create_task(self.client(number, over)) for number in range(CLIENTS)]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*tasks)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("minutes", [0, pytest.param(3, marks=pytest.mark.full)], ids=["short", "long"])
async def test_no_window_ever_holds_more_than_the_limit(house: House, name: str, minutes: int) -> None:
    """At no moment are more under way than may be. The limit is used up. In the long form keys have about the same of it, though
    some ask eighty times as often. A machine that is too busy may make a gateway refuse (503), never let in."""
    async with backend(Metered()) as fake:
        assert isinstance(fake, Metered)
        crowd = await _crowd(house, fake, name)
        began = time.monotonic()
        async with crowd.asking():
            if minutes:
                await asyncio.sleep(minutes * MINUTE)
            else:
                await until(lambda: crowd.refused[name] >= AFTERWARDS, "refusals by the limit")
        assert {answer.status for _, answer in crowd.answers} <= {200, 429, 503}
        served = [(number, answer) for number, answer in crowd.answers if answer.status == 200]
        assert {answer.id for _, answer in served} == set(fake.under_way)
    spans = [(answer.began, fake.under_way[answer.id][0], _amount(fake, answer, name)) for _, answer in served]
    most = _most_in_a_window(spans)
    counted = Counter(dict.fromkeys(range(CLIENTS), 0))
    counted.update(number for number, answer in served if answer.began >= began + (minutes and MINUTE))
    fair = jain(counted.values())
    print(
        f"\n{name} {LIMITS[name]}, {CLIENTS} clients, 2 gateways, {time.monotonic() - began:.0f} s: asked {len(crowd.answers)},"
        f" admitted {len(served)}; most in any 60 s {most}; most under way {_most_under_way(fake)} of {CONCURRENT};"
        f" refused {dict(crowd.refused)}; Jain's index {fair:.3f},"
        f" each key {min(counted.values())} to {max(counted.values())}"
    )
    assert 0.95 * LIMITS[name] <= most <= LIMITS[name]
    assert _most_under_way(fake) <= CONCURRENT
    if minutes:
        assert fair > 0.9


async def _crowd(house: House, fake: Metered, name: str) -> Crowd:
    await house.begin(gateways=2)
    org, model = unique("org"), unique("m")
    await house.model(model, fake.url)
    await house.org(org)
    await house.admin("PATCH", f"/orgs/{org}", {"limits": {name: LIMITS[name], "concurrent": CONCURRENT}})
    keys = [await Lab.key(house, org, "main") for _ in range(CLIENTS)]
    await house.known()
    return Crowd(house, keys, model)


def _amount(fake: Metered, answer: Answer, name: str) -> int:
    return 1 if name == "requests_per_minute" else sum(fake.served[answer.id])


def _most_in_a_window(spans: Iterable[tuple[float, float, int]]) -> int:
    """The most that was admitted for certain in any sixty seconds; spans are (not before, not after, amount)."""
    all_ = sorted(spans)
    return max(sum(n for first, last, n in all_ if first >= begin and last < begin + MINUTE) for begin, _, _ in all_)


def _most_under_way(fake: Metered) -> int:
    turns = sorted(turn for came, left in fake.under_way.values() for turn in ((came, 1), (left, -1)))
    now = most = 0
    for _, change in turns:
        now += change
        most = max(most, now)
    return most


async def _pause(over: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(over.wait(), seconds)
    except TimeoutError:
        return
