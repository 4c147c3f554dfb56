"""The command API over a real SQLite journal and a real relay; only the control topic is a list. Tests ask it over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.admin.app import create_app
from api.admin.call import AdminDeps
from commands.handling import Changes, Commands, Reply, Request
from commands.keys import issue_admin_key
from commands.ports import Overdue, Overrun, PartitionBalances, Stored
from commands.relay import Relay
from domain.errors import LogUnavailable
from infra.adapters.keyring_directory import KeyringDirectory
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_journal import SQLiteJournal
from projections.keyring import Keyring
from projections.ports import Record

SECRET = b"s" * 32
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

BUDGET = {"scope": {"kind": "org"}, "limit_usd": "5", "period": "month", "mode": "hard"}
"""What a budget can be set with."""


@dataclass
class Topic:
    """The control topic in memory, read by a keyring as soon as it is written; `broken` refuses everything."""

    keyring: Keyring
    records: list[tuple[int, Stored]] = field(default_factory=list)
    broken: bool = False

    async def tail(self) -> int:
        if self.broken:
            raise LogUnavailable("down")
        return self.records[-1][1].position if self.records else 0

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        if self.broken:
            raise LogUnavailable("down")
        for event in events:
            record = Record(0, len(self.records), event.body, event.position, previous)
            self.records.append((previous, event))
            self.keyring.apply([record])
            previous = event.position


@dataclass
class Books:
    """Balances that know some unconfirmed admissions."""

    waiting: list[Overdue] = field(default_factory=list)

    def watermarks(self) -> Mapping[int, int]:
        return {}

    def partition(self, partition: int) -> PartitionBalances:
        return PartitionBalances(0)

    def overdue(self, now: datetime) -> Sequence[Overdue]:
        return []

    def unconfirmed(self, org: str | None = None) -> Sequence[Overdue]:
        return self.waiting

    def awaiting(self, attempts: Sequence[str]) -> Sequence[Overdue]:
        return [waiting for waiting in self.waiting if waiting.attempt in attempts]

    def overruns(self) -> Sequence[Overrun]:
        return []


@dataclass
class Clock:
    """The time that the tests set."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass
class House:
    """A command API with everything behind it, and a client that holds the platform admin's key."""

    journal: SQLiteJournal
    topic: Topic
    books: Books
    commands: Commands
    client: httpx.AsyncClient
    clock: Clock

    async def call(
        self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named["authorization"] = f"Bearer {key}"
        return await self.client.request(method, f"/admin/v1{path}", json=body, headers=named)

    async def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = await self.call(method, path, body, **headers)
        assert answer.status_code in (200, 201, 204), answer.text
        return answer.json() if answer.content else None

    async def refused(
        self, status: int, code: str, method: str, path: str, body: Any = None, **headers: str
    ) -> list[str]:
        """The fields that the problem names."""
        answer = await self.call(method, path, body, **headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        return [error["field"] for error in answer.json().get("errors", [])]

    async def org(self, org: str = "acme", project: str = "main") -> None:
        await self.ok("POST", "/orgs", {"id": org, "name": org.title(), "timezone": "Europe/Vienna"})
        await self.ok("POST", f"/orgs/{org}/projects", {"id": project, "name": project})

    async def admin(self, role: str, org: str | None) -> str:
        body = {"name": role, "role": role, **({"org": org} if org else {})}
        secret: str = (await self.ok("POST", "/admin-keys", body))["secret"]
        return secret

    def events(self) -> int:
        return len(self.journal.after(0, 10_000))


@asynccontextmanager
async def admin_house(folder: Path) -> AsyncIterator[House]:
    """A command API whose journal is in `folder`."""
    clock = Clock()
    journal = SQLiteJournal(folder / "journal.db", SECRET, clock, "normal")
    secrets, keyring, books = InstallationSecrets(SECRET), Keyring(), Books()
    topic = Topic(keyring)
    relay = Relay(journal, topic, poll=0.01, patience=0.3)
    commands = Commands(journal, clock, secrets, relay.wait_for, keyring)
    app = create_app(
        AdminDeps(
            commands, KeyringDirectory(keyring), secrets, lambda: books, lambda: pytest.fail("not asked for"), clock
        )
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    issued: list[str] = []

    def bootstrap(changes: Changes) -> Reply:
        issued.append(issue_admin_key(changes, name="root", role="platform-admin").secret)
        return Reply(b"")

    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        made = House(journal, topic, books, commands, client, clock)
        running = asyncio.create_task(relay.run())
        await commands.execute(Request(actor="system"), bootstrap)
        client.headers["authorization"] = f"Bearer {issued[0]}"
        yield made
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    journal.close()
