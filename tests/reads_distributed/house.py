"""Read processes beside workers, over one log whose contents are known.

async with reading(stack) as house:
    house.write(books)
    doc = await house.get("/read/v1/orgs/acme/budgets/cap")
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from infra.stack import Stack
from projections.ports import FACTS
from tests.bookkeeping import SECRET, Books
from tests.child import Child
from tests.factgen import MemoryLog
from tests.http1 import Answer, Http
from tests.lab import TOLLHOUSE
from tests.waiting import eventually
from tests.workers.house import House, house


class Reading:
    """`home` has the workers, stores and topics. `get` asks the first read process, with a key of the books by name."""

    def __init__(self, home: House, books: Books) -> None:
        self.home, self.books = home, books
        self.processes: list[Child] = []
        self.url = "http://127.0.0.1:1"
        self.http = Http(self.url)
        self._facts = MemoryLog(FACTS)

    # ------------------------------------------------------------ processes

    def process(self) -> Child:
        """A read process that is not started."""
        command = [TOLLHOUSE, "read", "--listen", "127.0.0.1:0"]
        environ = self.home.environ | {"TOLLHOUSE_SECRET": SECRET.decode()}
        made = Child(command, self.home.folder / f"read-{len(self.processes)}.log", self.home.folder, environ)
        self.processes.append(made)
        return made

    async def open(self) -> Child:
        """One more read process; the first is the one that is asked."""
        made = self.process()
        url = await made.start()
        if len(self.processes) == 1:
            await self.ask_at(url)
        return made

    async def ask_at(self, url: str) -> None:
        """Questions go there from now on."""
        await self.http.close()
        self.url, self.http = url, Http(url)

    # ------------------------------------------------------------ the log

    def write_control(self) -> None:
        """Everything that happened in the control plane of the books."""
        self.home.write(self.books.control.log)

    def write_facts(self, facts: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        """More facts; answers the offset behind the last of each partition, once they are acknowledged."""
        for partition, body in facts:
            self._facts.append(partition, body)
        self.home.write(self._facts)
        return {partition: len(kept) for partition, kept in enumerate(self._facts.records) if kept}

    # ------------------------------------------------------------ asking

    async def call(self, method: str, path: str, key: str | None = "root", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["authorization"] = f"Bearer {self.books.keys[key]}"
        return await self.http.call(method, path, None, sent)

    async def get(self, path: str, key: str | None = "root", **headers: str) -> Any:
        """The document at `path`, which must be there."""
        answer = await self.call("GET", path, key, **headers)
        assert answer.status == 200, f"{path}: {answer.status} {answer.body.decode()[:500]}"
        return answer.json()

    async def current(self, path: str, key: str | None = "root") -> Any:
        """The document at `path`, from views that have everything."""
        await self.home.caught_up()
        return await self.get(path, key)

    async def operation(self, name: str, what: str, seconds: float = 120.0) -> Any:
        """The result of a rebuild or a verification."""
        started = await self.call("POST", f"/admin/v1/projections/{name}/{what}")
        assert started.status == 202, started.body
        path = f"/admin/v1/operations/{started.json()['operation']}"
        done = await eventually(lambda: self.get(path), lambda doc: doc["status"] != "running", seconds)
        assert done["status"] == "done", done
        return done["result"]

    async def close(self) -> None:
        await self.http.close()
        await asyncio.gather(*(process.kill() for process in self.processes))


@asynccontextmanager
async def reading(stack: Stack, books: Books) -> AsyncIterator[Reading]:
    """Topics and databases of its own, no process yet."""
    async with house(stack) as home:
        made = Reading(home, books)
        try:
            yield made
        finally:
            await made.close()
