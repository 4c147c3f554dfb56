"""A data folder whose log is known fact by fact: who spent what, when, and what became of it, without asking the product.

Requests lie around midnights and clock changes of several zones, and end in every way there is.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from commands.ports import Stored
from domain.admin_key import AdminKeyIssued
from domain.budget import BudgetSet, Scope
from domain.credential import ADMIN, SERVICE, make_key
from domain.facts import (
    BudgetHold,
    Fact,
    GateOpened,
    RequestAdmitted,
    RequestCompleted,
    RequestDenied,
    RequestFailed,
    RequestUnconfirmed,
    RequestWrittenOff,
    Try,
    Usage,
)
from domain.ids import made_id, partition_of, uuid7
from domain.organization import OrganizationCreated
from domain.period import Period, window
from domain.project import ProjectCreated
from domain.service_key import ApiKeyIssued, KeyRights
from infra.adapters.data_folder import DataFolder
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_log import SqliteLog
from tests.controlgen import ControlTraffic
from tests.factgen import end, envelope

SECRET = b"thirty-two bytes of secret, at least"
ZONES = ("UTC", "Asia/Kathmandu", "America/New_York")
NOW = datetime(2026, 11, 8, 12, tzinfo=UTC)
FIRST, LAST = datetime(2026, 10, 24, tzinfo=UTC), datetime(2026, 11, 8, tzinfo=UTC)
PIECE = 70
"""Facts that are written between two pauses: those of one request fall into different pieces."""

ENDPOINTS = ("chat.completions", "chat.completions", "embeddings")
OUTCOMES = ("completed", "late", "unconfirmed", "written_off", "failed", "denied", "open", "void", "repeated")

BUDGETS = {
    "cap": (Scope(kind="org"), Period(kind="lifetime")),
    "monthly": (Scope(kind="org"), Period(kind="month", timezone="Asia/Kathmandu")),
    "daily": (Scope(kind="project", id="web"), Period(kind="day", timezone="America/New_York")),
    "week": (Scope(kind="org"), Period(kind="rolling", days=7, timezone="Asia/Kathmandu")),
}


@dataclass(frozen=True, slots=True)
class Spent:
    """One request, as it truly was. Money in nano-dollars; `held` while it is open."""

    id: str
    org: str
    time: datetime
    project: str
    user: str | None
    key: str
    model: str
    backend: str | None
    endpoint: str
    outcome: str
    cost: int = 0
    held: int = 0
    count: int = 1
    usage: Usage = field(default_factory=Usage)


@dataclass
class Books:
    """The folder's contents, and the keys that open it."""

    control: ControlTraffic = field(default_factory=ControlTraffic)
    facts: list[tuple[int, bytes]] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    """Name to secret: ``root``, ``acme/org-admin``, ``acme/org-viewer``, ``acme/web``, ``acme/batch`` and so on."""

    def of(self, org: str) -> list[Spent]:
        return [spent for spent in self.spent if spent.org == org]


def moments() -> list[datetime]:
    """Around every local midnight and both clock changes, to the microsecond, in order."""
    found: set[datetime] = set()
    for zone in ZONES:
        day = FIRST.date()
        while day <= LAST.date():
            midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
            found |= {midnight, midnight - timedelta(microseconds=1), midnight + timedelta(microseconds=1)}
            day += timedelta(days=1)
    for change in (datetime(2026, 11, 1, 6, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)):
        found |= {change + timedelta(minutes=minutes) for minutes in range(-120, 121, 20)}
    return sorted(found)


def make_books(secrets: InstallationSecrets, orgs: Sequence[str] = ("acme", "globex"), seed: int = 7) -> Books:
    """Everything that is to be in the log."""
    books = Books()
    books.control.now = FIRST - timedelta(days=1)
    rng = random.Random(seed)
    _issue_admin(books, secrets, "root", "platform-admin", None)
    for org in orgs:
        _found(books, secrets, org)
    for partition in sorted({partition_of(org) for org in orgs}):
        _append(books, GateOpened(partition=partition, epoch=1), partition, FIRST)
    waiting: list[Callable[[], None]] = []
    for number, moment in enumerate(moments()):
        for org in orgs:
            later = _request(books, rng, org, moment, OUTCOMES[(number + len(org)) % len(OUTCOMES)])
            if later is not None:
                waiting.append(later)
        while len(waiting) > 10:
            waiting.pop(0)()
    for later in waiting:
        later()
    return books


def write_log(folder: DataFolder, books: Books, pause: Callable[[], None]) -> None:
    """Writes `books` into the folder's log, as relay and gateway would; calls `pause` now and then."""

    async def write_control() -> None:
        log = SqliteLog(folder.log, "normal")
        previous = 0
        for record in books.control.log.records[0]:
            await log.forward(previous, [Stored(record.position, record.value)])
            previous = record.position
        await log.close()

    async def write_facts(facts: Sequence[tuple[int, bytes]]) -> None:
        log = SqliteLog(folder.log, "normal")
        await asyncio.gather(*(log.append(partition, body) for partition, body in facts))
        await log.close()

    asyncio.run(write_control())
    for start in range(0, len(books.facts), PIECE):
        pause()
        asyncio.run(write_facts(books.facts[start : start + PIECE]))
    pause()


def make_folder(root: Path) -> DataFolder:
    folder = DataFolder(root)
    folder.make()
    return folder


# -- the control plane


def _found(books: Books, secrets: InstallationSecrets, org: str) -> None:
    emit = books.control.emit
    emit(f"{org}/org/{org}", OrganizationCreated(name=org.title(), timezone="UTC", budget_status=402))
    for project in ("web", "batch"):
        emit(f"{org}/project/{project}", ProjectCreated(name=project))
        secret = make_key(SERVICE, random.getrandbits(256))
        books.keys[f"{org}/{project}"] = secret
        issued = ApiKeyIssued(
            name=project,
            project=project,
            user=None,
            rights=KeyRights(),
            expires_at=None,
            hash=secrets.hash(secret),
            redacted="th_sk_…",
        )
        emit(f"{org}/key/key_{org}_{project}", issued)
    for role in ("org-admin", "org-billing", "org-viewer"):
        _issue_admin(books, secrets, f"{org}/{role}", role, org)
    for name, (scope, period) in BUDGETS.items():
        terms = BudgetSet(
            scope=scope,
            limit=9_000_000_000_000,
            limit_version=1,
            period=period,
            mode="hard",
            models=None,
            thresholds=(1.0,),
            life=1,
            created_at=books.control.now,
        )
        emit(f"{org}/budget/{name}", terms)


def _issue_admin(books: Books, secrets: InstallationSecrets, name: str, role: Any, org: str | None) -> None:
    secret = make_key(ADMIN, random.getrandbits(256))
    books.keys[name] = secret
    issued = AdminKeyIssued(name=role, role=role, org=org, hash=secrets.hash(secret), redacted="th_ak_…")
    books.control.emit(f"_/admin-key/adm_{len(books.keys)}", issued)


# -- the data plane


def _append(books: Books, fact: Fact, partition: int, at: datetime) -> None:
    books.facts.append((partition, envelope(fact, at, len(books.facts))))


def _request(books: Books, rng: random.Random, org: str, moment: datetime, fate: str) -> Callable[[], None] | None:
    """Writes the facts of one request; what comes later in the log is returned."""
    partition, backend = partition_of(org), rng.choice(("fake", "spare"))
    admitted = _admission(rng, org, moment, backend)
    completed = end(
        admitted,
        RequestCompleted,
        usage=Usage(
            input=rng.randrange(900),
            cached_input=rng.randrange(50),
            cache_write=rng.randrange(9),
            output=rng.randrange(256),
            reasoning=rng.randrange(32),
            audio_input=rng.randrange(70),
            image_input=rng.randrange(80),
            audio_output=rng.randrange(40),
        ),
        cost=rng.randrange(1, admitted.hold),
        backend=backend,
        tries=(Try(backend=backend, status=200, ms=12.5),),
        latency_ms=rng.randrange(1, 4000) / 2,
        first_token_ms=rng.randrange(1, 400) / 2 if admitted.stream else None,
    )
    unconfirmed = end(admitted, RequestUnconfirmed, reason="deadline", backend=backend)

    def write(*facts: Fact) -> None:
        for fact in facts:
            _append(books, fact, partition, moment)

    def book(outcome: str, **figures: Any) -> None:
        backend_known = None if outcome in ("denied", "void", "written_off") else backend
        names = {"project": admitted.project, "user": admitted.user, "key": admitted.key, "model": admitted.model}
        terms = {"id": admitted.request, "org": org, "time": moment, "endpoint": admitted.endpoint, **names}
        books.spent.append(Spent(**{**terms, "backend": backend_known, "outcome": outcome, **figures}))

    match fate:
        case "completed":
            write(admitted, completed)
            book("completed", cost=completed.cost, usage=completed.usage)
        case "repeated":
            write(admitted, admitted, completed, completed)
            book("completed", cost=completed.cost, usage=completed.usage)
            return lambda: write(completed, admitted)
        case "late":
            write(admitted, unconfirmed)
            book("completed", cost=completed.cost, usage=completed.usage)
            return lambda: write(completed)
        case "unconfirmed":
            write(admitted, unconfirmed)
            book("unconfirmed", cost=admitted.hold)
        case "written_off":
            write(admitted, unconfirmed, end(admitted, RequestWrittenOff, reason="agreed"))
            book("written_off")
            return lambda: write(completed)
        case "failed":
            write(admitted, end(admitted, RequestFailed, reason="upstream_refused", status=400, backend=backend))
            book("failed")
        case "denied":
            count = rng.randrange(1, 4)
            write(_denial(admitted, count))
            book("denied", count=count)
        case "open":
            write(admitted)
            book("open", held=admitted.hold)
        case "void":
            write(end(admitted, RequestFailed, reason="not_dispatched"))
            book("failed", backend=None)
            return lambda: write(admitted)
        case other:
            raise AssertionError(other)
    return None


def _admission(rng: random.Random, org: str, moment: datetime, backend: str) -> RequestAdmitted:
    request = made_id("req", uuid7(int(moment.timestamp() * 1000), rng.getrandbits(74)))
    project = rng.choice(("web", "batch"))
    return RequestAdmitted(
        request=request,
        attempt=request,
        org=org,
        project=project,
        user=rng.choice((None, "ada", "bob")),
        key=f"key_{org}_{project}",
        model=rng.choice(("small", "large", "=cmd|' /C calc'!A0")),
        endpoint=rng.choice(ENDPOINTS),
        stream=rng.random() < 0.5,
        accounted_at=moment,
        price="small@1",
        hold=rng.randrange(1_000_000_001, 50_000_000_003),
        epoch=1,
        deadline=moment + timedelta(seconds=605),
        backend=backend,
        grant=256,
        input_bound=900,
        budgets=tuple(_holds(project, moment)),
    )


def _holds(project: str, moment: datetime) -> Iterable[BudgetHold]:
    for name, (scope, period) in BUDGETS.items():
        if scope.kind == "org" or scope.id == project:
            span = window(period, moment)
            yield BudgetHold(
                budget=name,
                bucket=f"1.{span.bucket}",
                until=span.until,
                limit=9_000_000_000_000,
                limit_version=1,
                mode="hard",
                consumed=123_456_789,
                held=45_000_000,
            )


def _denial(admitted: RequestAdmitted, count: int) -> RequestDenied:
    last = made_id("req", uuid7(int(admitted.accounted_at.timestamp() * 1000) + 5, count))
    return RequestDenied(
        request=admitted.request,
        org=admitted.org,
        project=admitted.project,
        user=admitted.user,
        key=admitted.key,
        model=admitted.model,
        endpoint=admitted.endpoint,
        accounted_at=admitted.accounted_at,
        status=402,
        code="insufficient_quota",
        reason="budget cap is exhausted",
        budget="cap",
        budgets=admitted.budgets,
        worst=admitted.hold,
        count=count,
        last=last if count > 1 else None,
    )
