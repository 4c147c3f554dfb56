"""The composition root: the only place that builds adapters, and the only one that knows which mode runs.

`open_embedded` opens a data folder with everything that writes: journal, log, gate, relay, keyring, keeper. The views live
in a process of their own (`cli.views`), because the analytics engine wants one to itself.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cli.settings import Settings
from commands.admission import Admission
from commands.denials import Denials
from commands.fact_writer import FactWriter
from commands.handling import Changes, Commands, Reply, Request
from commands.keeper import Keeper
from commands.keys import issue_admin_key
from commands.opening import Opening
from commands.outcomes import Outcomes
from commands.reconcile import Reconciliation
from commands.relay import Relay
from domain import model
from domain.credential import SERVICE, well_formed
from domain.errors import Unavailable
from domain.ids import PARTITIONS, PLATFORM
from infra.adapters.child_process import ChildProcess
from infra.adapters.data_folder import DataFolder, FolderLock, write_private
from infra.adapters.ids import new_id
from infra.adapters.memory_gate import MemoryGate
from infra.adapters.row_holds import RowBalances
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_journal import SQLiteJournal
from infra.adapters.sqlite_log import SqliteLog, SqliteLogReader
from infra.adapters.sqlite_views import ViewsFile
from infra.adapters.upstream import HttpUpstream
from projections.keyring import Keyring
from projections.ports import CONTROL, FACTS
from streams.gate_settler import GateSettler
from streams.keyring_follower import KeyringFollower

if TYPE_CHECKING:
    from api.metrics import Metrics
    from api.router.app import Router

_log = logging.getLogger("tollhouse")
_KEEPER_SECONDS = 1.0
_ERASE_SECONDS = 3600.0


def utc_now() -> datetime:
    return datetime.now(UTC)


def installation_secret(settings: Settings, folder: DataFolder) -> bytes:
    """The secret that was set, or the folder's own."""
    return settings.secret.get_secret_value().encode() if settings.secret else folder.secret()


@dataclass(slots=True)
class Embedded:
    """An open data folder, running. `failed` resolves if a part of it ended by a bug: the process must end then."""

    settings: Settings
    folder: DataFolder
    secrets: InstallationSecrets
    journal: SQLiteJournal
    log: SqliteLog
    relay: Relay
    keyring: Keyring
    follower: KeyringFollower
    gate: MemoryGate
    writer: FactWriter
    balances: RowBalances
    admission: Admission
    upstream: HttpUpstream
    failed: "asyncio.Future[None]"
    first_admin_key: str | None = None
    """The admin key made at this start, if one was."""
    opened: bool = False

    @property
    def commands(self) -> Commands:
        return Commands(self.journal, utc_now, self.secrets, self.acknowledged)

    def reconciliation(self) -> Reconciliation:
        return Reconciliation(self.balances, self.writer, self.keyring)

    def router(self, metrics: "Metrics") -> "Router":
        from api.router.app import Router

        return Router(
            keyring=self.keyring,
            admission=self.admission,
            outcomes=Outcomes(self.gate, self.writer, self.bound_exceeded),
            denials=Denials(self.writer, utc_now),
            upstream=self.upstream,
            clock=utc_now,
            new_id=new_id,
            hash_key=lambda key: self.secrets.hash(key) if well_formed(key, SERVICE) else None,
            unseal=self.secrets.unseal,
            observe=metrics.observe,
            once_secret=self.secrets.hash("idempotency").encode(),
            max_body=self.settings.max_body,
            read_timeout=self.settings.read_timeout,
        )

    async def bound_exceeded(self, name: str, request: str, cost: int, hold: int) -> None:
        """Closes a model under hard budgets."""
        report = model.ReportExceededBound(request=request, cost=cost, hold=hold)

        def plan(changes: Changes) -> Reply:
            changes.apply(PLATFORM, model.KIND, name, report)
            return Reply(b"")

        await self.commands.execute(Request(actor="system", correlation_id=request), plan)

    async def acknowledged(self, position: int) -> None:
        """Returns once everything up to a journal position is in the log, and in this process's own view."""
        await self.relay.wait_for(position)
        self.follower.step()

    def reasons(self) -> list[str]:
        """Why requests are refused now; empty when they are not."""
        reasons = []
        if not self.keyring.fresh(time.monotonic()):
            reasons.append("the view of keys and budgets is not fresh")
        if not self.opened:
            reasons.append("the gate is not open")
        return reasons


@asynccontextmanager
async def open_embedded(settings: Settings) -> AsyncIterator[Embedded]:
    """Opens the folder, initialising an empty one, and runs it until the context ends. Raises `Conflict` if it is open."""
    folder = DataFolder(settings.data)
    folder.make()
    lock = FolderLock(folder, "lock")
    lock.take()
    secret = installation_secret(settings, folder)
    journal = SQLiteJournal(folder.journal, secret, utc_now, settings.sync)
    log = SqliteLog(folder.log, settings.sync)
    upstream = HttpUpstream()
    views = ViewsFile(folder.views)
    tasks: list[asyncio.Task[None]] = []
    try:
        core = _assemble(settings, folder, secret, journal, log, upstream, views)
        facts = SqliteLogReader(folder.log, FACTS)
        run = await core.gate.run()
        settler = GateSettler(core.gate, facts, run, core.keyring.epoch)
        log.on_commit(settler.committed)
        keeper = Keeper(core.gate, core.writer, lambda: core.balances, core.keyring, utc_now)
        for name, work in (
            ("relay", core.relay.run),
            ("keyring", core.follower.run),
            ("settler", settler.run),
            ("keeper", lambda: _every(_KEEPER_SECONDS, keeper.tick)),
            ("ledger", lambda: _every(_ERASE_SECONDS, lambda: asyncio.to_thread(journal.erase_secrets))),
        ):
            tasks.append(asyncio.create_task(_kept_running(name, work, core.failed)))
        await _first_admin(core)
        opening = Opening(
            core.gate, journal, core.acknowledged, core.writer, core.balances, facts, utc_now, new_id, quiet_seconds=0.0
        )
        await opening.open(range(PARTITIONS), abandoned=True)
        core.opened = True
        yield core
        await core.writer.drain()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        upstream.close()
        await log.close()
        journal.close()
        views.close()
        lock.release()


def views_child(folder: DataFolder) -> ChildProcess:
    """The process that keeps and answers the views of this folder."""
    arguments = ["--data", str(folder.root)]
    return ChildProcess("cli.views", arguments)


def _assemble(
    settings: Settings,
    folder: DataFolder,
    secret: bytes,
    journal: SQLiteJournal,
    log: SqliteLog,
    upstream: HttpUpstream,
    views: ViewsFile,
) -> Embedded:
    keyring = Keyring()
    follower = KeyringFollower(keyring, SqliteLogReader(folder.log, CONTROL))
    keyring.prove = follower.try_step  # the topic is a file of this machine
    gate = MemoryGate(PARTITIONS, utc_now, new_id("run"))
    writer = FactWriter(log, utc_now, new_id)
    return Embedded(
        settings=settings,
        folder=folder,
        secrets=InstallationSecrets(secret),
        journal=journal,
        log=log,
        relay=Relay(journal, log),
        keyring=keyring,
        follower=follower,
        gate=gate,
        writer=writer,
        balances=RowBalances(views),
        admission=Admission(gate, writer, keyring, utc_now, gate.identity),
        upstream=upstream,
        failed=asyncio.get_running_loop().create_future(),
    )


async def _first_admin(core: Embedded) -> None:
    """Issues a platform admin key if the folder has none, and keeps it where the command line finds it."""
    if core.folder.admin_key.exists():
        return

    def plan(changes: Changes) -> Reply:
        return Reply(issue_admin_key(changes, name="first", role="platform-admin").secret.encode())

    answer = await core.commands.execute(Request(actor="system"), plan)
    core.first_admin_key = answer.body.decode()
    write_private(core.folder.admin_key, core.first_admin_key)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await work()
        await asyncio.sleep(seconds)


async def _kept_running(name: str, work: Callable[[], Awaitable[None]], failed: "asyncio.Future[None]") -> None:
    """Runs `work` for ever: what is unavailable is tried again, a bug ends the process."""
    while True:
        try:
            await work()
        except Unavailable as error:
            _log.warning("%s: %s", name, error)
            await asyncio.sleep(0.2)
        except Exception as error:
            _log.exception("%s ended", name)
            if not failed.done():
                failed.set_exception(error)
            raise
