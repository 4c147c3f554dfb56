"""A product under attack, with a backend that keeps its own count, and what must hold of both when the attack is over."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.attack.endpoints import ANTHROPIC, OPENAI
from tests.attack.wire import Conversation, check, converse
from tests.exact import cost
from tests.lab import PRICE, HelloService, Key, Lab, Row
from tests.waiting import eventually

GROWTH = 48 << 20
"""Bytes that the process may grow by, however many requests there were."""

HARD, FREE = "acme", "globex"
"""An organization whose every request must have a bound, and one without a budget."""


@dataclass
class Target:
    """`keys`: a service key of each organization."""

    lab: Lab
    hello: HelloService
    keys: dict[str, Key]

    async def attack(self, pieces: Sequence[bytes], methods: Sequence[str], *, leave: bool = False) -> Conversation:
        """One case (see `converse`), every answer of which is checked. On a machine that is busy elsewhere the product may refuse
        for a moment, and says so: then again."""

        async def once() -> Conversation:
            conversation = await converse(self.lab.listen, pieces, methods, leave=leave)
            for answer in conversation.answers:
                check(answer)
            return conversation

        return await eventually(once, lambda made: all(answer.status != 503 for answer in made.answers))


@asynccontextmanager
async def target() -> AsyncIterator[Target]:
    """A product to attack. When that is over it must be as it was: see `settled`."""
    environ = {"TOLLHOUSE_READ_TIMEOUT": "10", "TOLLHOUSE_MAX_BODY": str(1 << 20), "TOLLHOUSE_SYNC": "normal"}
    async with Lab(environ) as lab:
        hello = await lab.hello()
        await lab.model(OPENAI, hello.url, backend="hello")
        await lab.model(ANTHROPIC, hello.url.removesuffix("/v1"), backend="claude", protocol="anthropic")
        keys = {org: (await lab.org(org))["main"] for org in (HARD, FREE)}
        await lab.budget(HARD, "cap", "1000000")
        await lab.org("attacked")
        made = Target(lab, hello, keys)
        for key in keys.values():
            for _ in range(50):
                answer = await eventually(partial(lab.chat, key, OPENAI), lambda answer: answer.status != 503)
                assert answer.status == 200
        assert await eventually(lambda: lab.rows(HARD), bool)
        before = await _standing(lab)
        yield made
        await settled(made, before)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a process has open, and bytes of memory."""

    sockets: int
    tasks: float
    memory: int


async def settled(made: Target, before: Standing) -> None:
    """No socket, no task and no hold is left, memory has not grown beyond `GROWTH`, the log tells of no error of ours and of
    nothing that was sent, and the books say of each request that the backend served what the backend's journal says."""
    lab = made.lab
    after = await eventually(
        lambda: _standing(lab), lambda now: now.sockets <= before.sockets and now.tasks <= before.tasks, 60.0
    )
    assert after.sockets <= before.sockets
    assert after.tasks <= before.tasks
    assert after.memory - before.memory < GROWTH
    log = lab.product.log.read_text()
    assert '"level":"error"' not in log, log[-4000:]
    assert "Traceback" not in log, log[-4000:]
    await _books_agree(made)


async def _books_agree(made: Target) -> None:
    lines = made.hello.served()
    served = {line["request_id"]: line for line in lines}
    assert len(served) == len(lines), "the backend served a request twice"
    rows = await eventually(lambda: _rows(made), lambda rows: _ended(rows) >= set(served))
    assert [row for row in rows if row.outcome not in ("completed", "failed", "denied")] == []
    booked = {row.id: row for row in rows if row.outcome == "completed"}
    assert set(booked) == set(served)
    for id, row in booked.items():
        line = served[id]
        if not row.estimated:  # a caller who left a stream is charged what was seen
            assert row.cost == cost(PRICE, line["prompt_tokens"], line["completion_tokens"]), line
    assert (await made.lab.balance(HARD, "cap")).held == 0


def _ended(rows: Sequence[Row]) -> set[str]:
    """Ids of requests that came to an end; none while one has not."""
    return set() if any(row.outcome == "open" for row in rows) else {row.id for row in rows}


async def _rows(made: Target) -> list[Row]:
    return [row for org in made.keys for row in await made.lab.rows(org)]


async def _standing(lab: Lab) -> Standing:
    tasks = await lab.metric("tollhouse_tasks")
    proc = Path(f"/proc/{lab.product.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    return Standing(sum(_is_socket(file) for file in (proc / "fd").iterdir()), tasks, pages * 4096)


def _is_socket(file: Path) -> bool:
    try:
        return str(file.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False  # closed while we looked
