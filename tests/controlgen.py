"""Synthetic control events: organizations, budgets, keys and backends that live and change, chained as a relay would, with
the records that a deposed leader leaves behind."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from domain import backend, budget, organization, service_key
from domain.envelope import Envelope, encode
from domain.ids import made_id, uuid7
from domain.period import Period
from projections.ports import CONTROL
from tests.factgen import MemoryLog

START = datetime(2026, 11, 2, 9, tzinfo=UTC)
HASH = "5ec2e7" * 10


class ControlTraffic:
    """Writes chained control records into a log."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.log = MemoryLog(CONTROL)
        self.versions: dict[str, int] = {}
        self.position = 0
        self.now = START
        self._states: dict[str, Any] = {}

    def run(self, events: int) -> "ControlTraffic":
        """About `events` more, with a stray record now and then."""
        for number in range(events):
            org = self.random.choice(("acme", "globex", "initech"))
            self._one(org, number)
            if self.random.random() < 0.2:
                self.stray()
        return self

    def emit(self, stream: str, event: Struct) -> int:
        """Appends the next event of `stream`; answers its journal position."""
        previous, self.position = self.position, self.position + self.random.choice((1, 1, 3))
        self.log.append(0, self.body(stream, event), self.position, previous)
        return self.position

    def body(self, stream: str, event: Struct) -> bytes:
        """The stored bytes of the next event of `stream`."""
        self.versions[stream] = version = self.versions.get(stream, 0) + 1
        self.now += timedelta(seconds=self.random.random())
        id = made_id("evt", uuid7(int(self.now.timestamp() * 1000), self.random.getrandbits(74)))
        return encode(
            Envelope(
                id=id,
                type=type(event).__name__,
                org=stream.partition("/")[0],
                stream=stream,
                version=version,
                occurred_at=self.now,
                actor="key_admin",
                data=event,
            )
        )

    def stray(self) -> None:
        """A record that does not continue the chain: one that was there before, or one that runs ahead of it."""
        kept = self.log.records[0]
        old = kept[self.random.randrange(len(kept))]
        if self.random.random() < 0.5:
            self.log.append(0, old.value, old.position, old.previous)
        else:
            self.log.append(0, old.value, self.position + 5, self.position + 4)

    def _one(self, org: str, number: int) -> None:
        match self.random.randrange(4):
            case 0:
                self._organization(org)
            case 1:
                self._budget(f"{org}/budget/{self.random.choice(('cap', 'daily'))}")
            case 2:
                self._key(f"{org}/key/key_{number}")
            case _:
                self._backend("_/backend/fake")

    def _organization(self, org: str) -> None:
        stream = f"{org}/org/{org}"
        if stream not in self.versions:
            event: Struct = organization.OrganizationCreated(name=org.title(), timezone="UTC", budget_status=402)
        else:
            event = organization.OrganizationRenamed(name=f"{org} {self.position}", before=org)
        self.emit(stream, event)

    def _budget(self, stream: str) -> None:
        version = self.versions.get(stream, 0) + 1
        if version > 1:
            self.emit(stream, budget.BudgetLimitChanged(limit=version * 10**9, before=1, limit_version=version))
            return
        self.emit(stream, budget_set(limit=5 * 10**9, at=self.now))

    def _key(self, stream: str) -> None:
        self.emit(
            stream,
            service_key.ApiKeyIssued(
                name="app",
                project="web",
                user=None,
                rights=service_key.KeyRights(),
                expires_at=None,
                hash=HASH,
                redacted="th_sk_…abcd",
            ),
        )
        if self.random.random() < 0.5:
            self.emit(stream, service_key.ApiKeyRevoked(reason="left"))

    def _backend(self, stream: str) -> None:
        if stream not in self.versions:
            connection = backend.Connection(url="http://127.0.0.1:9/v1", protocol="openai", credential="sealed")
            self.emit(stream, backend.BackendRegistered(connection=connection))
        else:
            self.emit(stream, backend.BackendDrained(reason=None))


def budget_set(limit: int, at: datetime) -> budget.BudgetSet:
    """A lifetime budget over an organization, `limit` in nano-dollars."""
    return budget.BudgetSet(
        scope=budget.Scope(kind="org"),
        limit=limit,
        limit_version=1,
        period=Period(kind="lifetime"),
        mode="hard",
        models=None,
        thresholds=(0.8,),
        life=1,
        created_at=at,
    )
