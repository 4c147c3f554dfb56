"""A bound that was wrong closes its model also when the process is killed before it could say so."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from tests.lab import Lab
from tests.waiting import eventually


async def test_a_report_that_died_with_its_process_is_made_at_the_next_start(lab: Lab) -> None:
    """The backend charges more than the hold, the journal is locked, so that the report waits; then kill -9. The cost is on the
    books already, so the next process must close the model: 422 under a hard budget, until it is published again."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "1000")
    fake.claiming["m"] = 90_000
    with _locked(lab):
        served = await lab.chat(key, "m")
        assert (served.status, (await lab.chat(key, "m")).status) == (200, 200)
        await lab.product.kill()
    fake.claiming.clear()  # no later request can be the reason
    await lab.start()
    closed = await eventually(lambda: lab.chat(key, "m"), lambda answer: answer.status != 200)
    assert (closed.status, closed.code) == (422, "unbounded_cost")
    await lab.model("m", fake.url)  # as it was: the admin has looked
    assert (await lab.chat(key, "m")).status == 200
    await lab.product.kill()
    await lab.start()
    for _ in range(3):  # rounds of the keeper go by
        assert (await lab.chat(key, "m")).status == 200
        await asyncio.sleep(1.0)


@contextmanager
def _locked(lab: Lab) -> Iterator[None]:
    """Nobody can write to the journal meanwhile."""
    with closing(sqlite3.connect(lab.data / "journal.db", isolation_level=None)) as journal:
        journal.execute("BEGIN IMMEDIATE")
        yield
        journal.execute("ROLLBACK")
