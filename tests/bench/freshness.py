"""How long after its answer a request is in the read API, while others go through at a steady rate."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.bench.processes import on_cores
from tests.http1 import Answer, Http

PER_SECOND = 200
SENDERS, READERS = 8, 8

BUDGET = "/read/v1/orgs/bench/budgets/cap"


@dataclass(slots=True)
class Fresh:
    """`reads`: milliseconds from each answer that was followed to the read that has it; `per_second`: requests served;
    `refused`: how many requests and reads were refused by which code."""

    per_second: float
    reads: list[float]
    refused: Counter[str]

    def __str__(self) -> str:
        found = sorted(self.reads)
        rate = f"freshness at {self.per_second:.0f} requests/s ({PER_SECOND} asked for)"
        refused = ", ".join(f"{count} {code}" for code, count in self.refused.most_common()) or "nothing"
        if not found:
            return f"{rate}: no read came through, refused: {refused}"
        p50, p99 = statistics.median(found), found[int(len(found) * 0.99)]
        return f"{rate}: p50 {p50:.0f} ms, p99 {p99:.0f} ms ({len(found)} reads, refused: {refused})"


class _Load:
    """Requests leave at a steady rate, whoever sends them; some are followed into the read API."""

    def __init__(self, gateway: Http, read: Http, admin: str, key: str, plain: str) -> None:
        self._gateway, self._read = gateway, read
        self._admin, self._key, self._body = admin, key, plain.encode()
        self._due = time.monotonic()
        self.served = 0
        self.refused: Counter[str] = Counter()
        self.found: list[float] = []

    async def send(self) -> Answer:
        """The next one, when it is due."""
        now = time.monotonic()
        self._due = max(self._due + 1 / PER_SECOND, now - 1.0)
        await asyncio.sleep(max(0.0, self._due - now))
        headers = {"authorization": f"Bearer {self._key}"}
        answer = await self._gateway.call("POST", "/v1/chat/completions", self._body, headers)
        if answer.status == 200:
            self.served += 1
        else:
            self.refused[str(answer.code)] += 1
        return answer

    async def follow(self) -> None:
        """The next one, and then a read that has it."""
        position = (await self.send()).headers.get("x-tollhouse-position")
        if position is None:
            return
        answered = time.monotonic()
        headers = {"authorization": f"Bearer {self._admin}", "x-tollhouse-position": position}
        read = await self._read.call("GET", BUDGET, headers=headers)
        if read.status == 200:
            self.found.append((time.monotonic() - answered) * 1000)
        else:
            self.refused[str(read.code)] += 1


async def _measured(gateway: str, read: str, admin: str, key: str, plain: str, seconds: float) -> Fresh:
    async with Http(gateway) as requests, Http(read) as reads:
        load = _Load(requests, reads, admin, key, plain)
        began = time.monotonic()

        async def until_end(step: Callable[[], Awaitable[object]]) -> None:
            while time.monotonic() < began + seconds:
                await step()

        steps = [load.send] * SENDERS + [load.follow] * READERS
        await asyncio.gather(*map(until_end, steps))
        return Fresh(load.served / (time.monotonic() - began), load.found, load.refused)


def measured(gateway: str, read: str, admin: str, key: str, plain: str, seconds: float, cores: Sequence[int]) -> Fresh:
    """The client runs on `cores`."""
    with on_cores(cores):
        return asyncio.run(_measured(gateway, read, admin, key, plain, seconds))
