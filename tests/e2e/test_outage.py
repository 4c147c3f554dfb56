"""P6: failure is closed. While the log cannot be written nothing is dispatched, and it recovers by itself."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.lab import Lab
from tests.pressure import pressure
from tests.waiting import eventually

_LOCKER = """
import sqlite3, sys
log = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
log.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
log.execute("ROLLBACK")
"""


@asynccontextmanager
async def unwritable(file: Path) -> AsyncIterator[None]:
    """Another process holds the file's only write lock: also root cannot write then."""
    locker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _LOCKER, str(file), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert locker.stdin is not None and locker.stdout is not None
    assert await locker.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        locker.stdin.close()
        await locker.stdout.read()
        await locker.wait()


async def test_without_its_log_nothing_is_dispatched_and_it_recovers_by_itself(lab: Lab) -> None:
    """The log made unwritable under load: 503 log_unavailable and no dispatch, at once and later; then served again, and
    every request is on the books as what it was."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "1000")
    async with pressure(lab, key, "m") as load:
        await load.of(200, 50)
        # Callers of their own: those from before may all be waiting for answers that are owed.
        async with unwritable(lab.data / "log.db"), pressure(lab, key, "m") as late:
            await late.of(503, 5)  # what was admitted before the lock has been dispatched by now
            dispatched = len(fake.received)
            await late.of(503, 100)
            assert len(fake.received) == dispatched
        await load.of(200, 50)
    answers = load.answers + late.answers
    refused = [answer for answer in answers if answer.status != 200]
    assert {(answer.status, answer.code) for answer in refused} == {(503, "log_unavailable")}
    assert all("retry-after" in answer.headers for answer in refused)
    assert not load.cuts + late.cuts
    assert not {answer.id for answer in refused} & set(fake.ids), "refused, and dispatched later all the same"
    assert {answer.id for answer in answers if answer.status == 200} == set(fake.served)
    rows = await eventually(
        lambda: lab.rows("acme"),
        lambda rows: {row.id for row in rows if row.outcome == "completed"} == set(fake.served),
    )
    assert {row.id for row in rows if row.outcome == "completed"} == set(fake.served)
    assert {row.outcome for row in rows} <= {"completed", "failed", "void"}
    balance = await eventually(lambda: lab.balance("acme", "cap"), lambda balance: not balance.held)
    assert (balance.held, balance.consumed) == (0, sum(row.cost for row in rows if row.outcome == "completed"))


async def test_a_process_that_stood_still_serves_at_once(lab: Lab) -> None:
    """Stopped for longer than its view of keys may be old, it proves its view anew instead of refusing what had waited."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    assert (await lab.chat(key, "m")).status == 200
    os.kill(lab.product.pid, signal.SIGSTOP)
    waiting = [asyncio.create_task(lab.chat(key, "m")) for _ in range(50)]
    await asyncio.sleep(1.5)  # standing still is the attack
    os.kill(lab.product.pid, signal.SIGCONT)
    answers = await asyncio.gather(*waiting)
    assert {(answer.status, answer.code) for answer in answers} == {(200, None)}


async def test_an_answer_that_is_owed_waits_for_the_log(lab: Lab) -> None:
    """A request dispatched before the log became unwritable: its last byte comes after its completion is durable, so only
    once the log is back; it is not lost."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    gate = fake.gates["m"] = asyncio.Event()
    plain = asyncio.create_task(lab.chat(key, "m"))
    stream = await lab.stream(key, "m", max_tokens=3)
    await eventually(lambda: asyncio.sleep(0, len(fake.received)), lambda count: count == 2)
    pieces: list[bytes] = []

    async def rest() -> None:
        while piece := await stream.piece():
            pieces.append(piece)

    reading = asyncio.create_task(rest())
    async with unwritable(lab.data / "log.db"):
        gate.set()
        await eventually(lambda: asyncio.sleep(0, len(fake.served)), lambda count: count == 2)
        refusals = 0
        while refusals < 3:  # by then both answers have been in the gateway for more than one failed commit
            refusals += (await lab.chat(key, "m")).status == 503
        assert not plain.done()
        assert not reading.done()
        assert b"[DONE]" not in b"".join(pieces)
    await reading
    assert (await plain).status == 200
    assert b"[DONE]" in b"".join(pieces)
