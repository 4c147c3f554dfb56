"""The read API over a known log: the real log, engines, SQLite and chDB in a folder, asked in process."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import httpx
from fastapi import FastAPI

from api.read.app import create_app
from api.read.deps import ReadDeps
from cli.wiring_reads import open_reads
from cli.wiring_views import open_views
from commands.ports import Stored
from infra.adapters.data_folder import DataFolder
from infra.adapters.sqlite_log import SqliteLog, SqliteLogReader
from projections.engine import Engine
from projections.ports import LogReader, Record
from tests.bookkeeping import NOW, SECRET, Books, write_log


@dataclass
class ReadHouse:
    """`get` asks with a key of the books, by name."""

    app: FastAPI
    deps: ReadDeps
    engines: Mapping[str, Engine]
    books: Books
    log: "HouseLog"

    async def call(self, method: str, path: str, key: str | None = "root", **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["authorization"] = f"Bearer {self.books.keys[key]}"
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=sent)

    async def get(self, path: str, key: str | None = "root", **headers: str) -> Any:
        """The document at `path`, which must be there."""
        answer = await self.call("GET", path, key, **headers)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    async def refused(self, status: int, code: str, path: str, key: str | None = "root", **headers: str) -> Any:
        """The problem that `path` answers."""
        answer = await self.call("GET", path, key, **headers)
        doc = answer.json()
        assert (answer.status_code, (doc.get("error") or doc)["code"]) == (status, code), answer.text
        return doc


class HouseLog(Protocol):
    """The log of a house, to write more into it and to read it as it is."""

    async def append(self, partition: int, body: bytes) -> int:
        """One more fact; its offset."""

    async def forward(self, records: Sequence[Record]) -> None:
        """More control records."""

    def reader(self, topic: str) -> LogReader:
        """One of its own."""


class FolderLog:
    """`HouseLog` of a data folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def append(self, partition: int, body: bytes) -> int:
        log = SqliteLog(self._path, "normal")
        offset = await log.append(partition, body)
        await log.close()
        return offset

    async def forward(self, records: Sequence[Record]) -> None:
        log = SqliteLog(self._path, "normal")
        for record in records:
            await log.forward(record.previous, [Stored(record.position, record.value)])
        await log.close()

    def reader(self, topic: str) -> LogReader:
        return SqliteLogReader(self._path, topic)


@contextmanager
def open_house(folder: DataFolder, books: Books, now: datetime = NOW) -> Iterator[ReadHouse]:
    """Writes the log while the views follow it in many small batches, and opens the API."""
    write_log(folder, Books(), lambda: None)
    with open_views(folder) as views:
        views.analytics.command(
            "SYSTEM STOP MERGES"
        )  # rows that replace others stay beside them: reads must not count them
        views.runner.start()
        try:
            with open_reads(folder, SECRET, views, lambda: now) as deps:
                write_log(folder, books, lambda: catch_up(deps))
                yield ReadHouse(create_app(deps), deps, views.engines, books, FolderLog(folder.log))
        finally:
            views.runner.stop()


def catch_up(deps: ReadDeps, seconds: float = 60.0) -> None:
    """Returns once every view has all of the log."""
    deadline = time.monotonic() + seconds
    while any(deps.freshness.lag(name) for name in deps.freshness.names):
        assert time.monotonic() < deadline, deps.failing()
        time.sleep(0.01)
