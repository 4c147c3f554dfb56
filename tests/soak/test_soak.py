"""Soak: most of what the product can take, for long: streams and plain requests, some of whose callers leave. Memory stays
flat, nothing is held at the end, and the books are the backends' own."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.adapters.load_client import Load, LoadClient, LoadResult
from tests.child import living
from tests.exact import cost, dollars
from tests.http1 import Http
from tests.lab import PRICE, HelloService, Key, Lab, Row
from tests.waiting import PATIENCE, eventually

SHARE = 0.7
"""Of what it can take."""

STREAMED = 0.3
LEAVE = 0.05
"""Of the requests: their callers leave in the middle of a stream."""

SENDERS = 64
MIB = 1024 * 1024
MOMENTS = (0.1, 0.5, 1.0)
"""When memory is told, as shares of the whole time: minutes 1, 5 and 10 of ten."""


@dataclass
class Soak:
    """The product, its backends, and the bytes that its processes had resident at each of `MOMENTS`: the one that takes
    requests first, then the one that keeps the views."""

    lab: Lab
    key: Key
    backends: list[HelloService]
    memory: list[list[int]] = field(default_factory=list)
    left: int = 0
    """Callers who left."""

    async def capacity(self) -> float:
        """Requests a second when as many as can be are under way."""
        body = _body("quick", False, 20)
        loads = itertools.takewhile(
            lambda load: True, _until(time.perf_counter() + 3.0, Load(0.0, body, self.key.secret, False))
        )
        result = await LoadClient(self.lab.url).run(loads, SENDERS)
        assert set(result.outcomes) == {"200"}, result.outcomes
        return result.requests / result.seconds

    async def load(self, rate: float, seconds: float) -> LoadResult:
        """Requests at an even pace, plain and streamed."""
        dice = random.Random(1)

        def loads() -> Iterator[Load]:
            for number in range(int(rate * seconds)):
                stream = dice.random() < STREAMED
                yield Load(number / rate, _body("quick", stream, dice.randint(1, 60)), self.key.secret, stream)

        return await LoadClient(self.lab.url).run(loads(), SENDERS)

    async def leave(self, rate: float, seconds: float) -> None:
        """Callers who leave in the middle of what they asked for."""
        dice, began = random.Random(2), time.perf_counter()
        for number in itertools.count():
            due = began + number / rate
            if due >= began + seconds:
                return
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            async with Http(self.lab.url) as http:
                headers = {"authorization": f"Bearer {self.key.secret}"}
                opened = await http.open("POST", "/v1/chat/completions", json.loads(_body("drip", True, 40)), headers)
                assert opened.status == 200
                await asyncio.sleep(dice.uniform(0, 0.05))
                opened.leave()
            self.left += 1

    async def watch(self, seconds: float) -> None:
        """Looks at the memory at each of `MOMENTS`."""
        began = time.perf_counter()
        for moment in MOMENTS:
            await asyncio.sleep(max(0.0, began + moment * seconds - time.perf_counter()))
            self.memory.append([_resident(pid) for pid in sorted(living([self.lab.product.pid]))])

    async def books(self) -> dict[str, Row]:
        """Every request, once none is open and none is missing."""
        served = {line["request_id"] for hello in self.backends for line in hello.served()}

        def whole(rows: list[Row]) -> bool:
            return served <= {row.id for row in rows} and not any(row.outcome == "open" for row in rows)

        rows = await eventually(lambda: self.lab.rows("acme"), whole, PATIENCE * 2)
        return {row.id: row for row in rows}


def _until(end: float, load: Load) -> Iterator[Load]:
    while time.perf_counter() < end:
        yield load


def _body(model: str, stream: bool, tokens: int) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": "how are you today"}], "max_tokens": tokens}
    usage = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return json.dumps(asked | usage).encode()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("seconds", [20, pytest.param(600, marks=pytest.mark.full)])
async def test_memory_is_flat_and_the_books_are_equal(seconds: int) -> None:
    """At 70 % of what it can take, with callers who leave: no process grows, no hold is left, and each request is on the books
    at what its backend says of it; those that were left, at no less."""
    async with Lab() as lab:
        quick, drip = await lab.hello("quick"), await lab.hello("drip", "--ms-per-token", "3")
        await lab.model("quick", quick.url, backend="quick")
        await lab.model("drip", drip.url, backend="drip")
        key = (await lab.org("acme"))["main"]
        await lab.budget("acme", "cap", "1000000")
        soak = Soak(lab, key, [quick, drip])
        rate = await soak.capacity() * SHARE
        result, *_ = await asyncio.gather(
            soak.load(rate * (1 - LEAVE), seconds), soak.leave(rate * LEAVE, seconds), soak.watch(seconds)
        )
        rows = await soak.books()
        for hello in soak.backends:
            assert await hello.child.stop() == 0
        told = ", ".join(" + ".join(f"{size // MIB} MiB" for size in sizes) for sizes in soak.memory)
        outcomes = Counter(row.outcome for row in rows.values())
        print(
            f"\nsoak: {rate:.0f} requests/s for {seconds} s, {result.requests} whole answers, {soak.left} left; "
            f"{dict(outcomes)}; memory of its processes at {MOMENTS} of the time: {told}"
        )
        assert set(result.outcomes) == {"200"}, result.outcomes
        exact = {
            line["request_id"]: cost(PRICE, line["prompt_tokens"], line["completion_tokens"])
            for hello in soak.backends
            for line in hello.served()
            if line["state"] == "served"
        }
        wrong = [row for row in rows.values() if row.id in exact and not row.estimated and row.cost != exact[row.id]]
        assert not wrong, wrong[:5]
        assert set(exact) <= set(rows)
        assert outcomes.keys() <= {"completed"}
        assert len(rows) - len(exact) <= soak.left
        assert (await lab.balance("acme", "cap")).held == 0
        total = sum(row.cost for row in rows.values())
        assert (await lab.balance("acme", "cap")).consumed == total, dollars(total)
        for early, late in zip(soak.memory[0], soak.memory[-1], strict=True):
            assert late <= early * 1.3 + 64 * MIB, told
