"""The composition root: the only place that builds adapters, and the only one that knows which mode runs.

`open_embedded` opens a data folder with everything that writes: journal, log, gate, relay, keyring, keeper. The views live
in a process of their own (`cli.views`), because the analytics engine wants one to itself.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cli.assembling import WATCH_SECONDS, issue_first_admin_key, router_of, telling_spans, watch_of
from cli.running import every, kept_running
from cli.settings import Settings
from commands.admission import Admission
from commands.backend_states import BackendStates
from commands.fact_writer import FactWriter
from commands.handling import Commands
from commands.keeper import Keeper
from commands.opening import Opening
from commands.outcomes import Outcomes
from commands.overruns import Overruns, close_model
from commands.ports import Overrun
from commands.reconcile import Reconciliation
from commands.relay import Relay
from commands.tracing import Spans
from domain import admin_key
from domain.credential import ADMIN, make_key
from domain.errors import Unavailable
from domain.ids import PARTITIONS
from infra.adapters.address_guard import AddressGuard
from infra.adapters.child_process import ChildProcess
from infra.adapters.clock import SteadyClock
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
_DRAIN_SECONDS = 10.0
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
    clock: SteadyClock
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
    backends: BackendStates
    reads: HttpUpstream
    """To the process that keeps the views."""
    failed: "asyncio.Future[None]"
    spans: Spans | None = None
    first_admin_key: str | None = None
    """The admin key made at this start, if one was."""
    opened: bool = False

    @property
    def commands(self) -> Commands:
        return Commands(self.journal, self.clock, self.secrets, self.acknowledged, self.keyring)

    def reconciliation(self) -> Reconciliation:
        return Reconciliation(self.balances, self.writer, self.keyring, self.log.ends)

    def router(self, metrics: "Metrics") -> "Router":
        return router_of(
            self.settings,
            metrics,
            keyring=self.keyring,
            admission=self.admission,
            outcomes=Outcomes(self.gate, self.writer, self.bound_exceeded, self.spans),
            writer=self.writer,
            upstream=self.upstream,
            clock=self.clock,
            secrets=self.secrets,
            states=self.backends,
            spans=self.spans,
        )

    async def bound_exceeded(self, name: str, request: str, cost: int, hold: int) -> None:
        """Closes a model under hard budgets, as soon as the journal takes it. If this process ends before that, the next one
        finds the overrun in the balances."""
        while True:
            try:
                await close_model(self.commands, Overrun(name, request, request, cost, hold))
                return
            except Unavailable as error:
                _log.warning("model %s exceeded its bound, and stays open for now: %s", name, error)
                await asyncio.sleep(_KEEPER_SECONDS)

    async def acknowledged(self, position: int) -> None:
        """Returns once everything up to a journal position is in the log, and in this process's own view."""
        await self.relay.wait_for(position)
        if self.keyring.position < position:  # else the first of those who were told has looked for all of them
            self.follower.step()

    def reasons(self) -> list[str]:
        """Why requests are refused now; empty when they are not."""
        reasons = []
        if not self.keyring.fresh(time.monotonic()):
            reasons.append("the view of keys and budgets is not fresh")
        if not self.opened:
            reasons.append("the gate is not open")
        if stepped := self.clock.stepped:
            reasons.append(f"the system's clock leapt by {stepped:.0f} s: put it right, or start the process again")
        return reasons


@asynccontextmanager
async def open_embedded(settings: Settings) -> AsyncIterator[Embedded]:
    """Opens the folder, initialising an empty one, and runs it until the context ends. Raises `Conflict` if it is open."""
    folder = DataFolder(settings.data)
    folder.make()
    lock = FolderLock(folder, "lock")
    lock.take()
    secret = installation_secret(settings, folder)
    clock = SteadyClock()
    journal = SQLiteJournal(folder.journal, secret, clock, settings.sync)
    log = SqliteLog(folder.log, settings.sync)
    upstream = HttpUpstream(AddressGuard(loopback=True, private=settings.allow_private))
    reads = HttpUpstream()
    views = ViewsFile(folder.views)
    tasks: list[asyncio.Task[None]] = []
    try:
        core = _assemble(settings, folder, secret, clock, journal, log, upstream, reads, views)
        facts = SqliteLogReader(folder.log, FACTS)
        run = await core.gate.run()
        settler = GateSettler(core.gate, facts, run, core.keyring.epoch)
        log.on_commit(settler.committed)
        keeper = Keeper(core.gate, core.writer, lambda: core.balances, core.keyring, clock)
        overruns = Overruns(lambda: core.balances, core.commands)
        watch = watch_of(core.backends, core.keyring, upstream, core.secrets)
        for name, work in (
            ("relay", core.relay.run),
            ("keyring", core.follower.run),
            ("settler", settler.run),
            ("keeper", lambda: every(_KEEPER_SECONDS, keeper.tick)),
            ("overruns", lambda: every(_KEEPER_SECONDS, overruns.tick)),
            ("backends", lambda: every(WATCH_SECONDS, watch.tick)),
            ("ledger", lambda: every(_ERASE_SECONDS, lambda: asyncio.to_thread(journal.erase_secrets))),
        ):
            tasks.append(asyncio.create_task(kept_running(name, work, core.failed)))
        core.follower.step()
        await _first_admin(core)
        opening = Opening(
            core.gate, journal, core.acknowledged, core.writer, core.balances, facts, clock, new_id, quiet_seconds=0.0
        )
        await opening.open(range(PARTITIONS), abandoned=True)
        core.opened = True
        async with telling_spans(settings, core.keyring) as core.spans:
            yield core
            async with asyncio.timeout(_DRAIN_SECONDS):
                await core.writer.drain()
    except TimeoutError:
        _log.error("the log did not take the last refusals within %s s", _DRAIN_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        upstream.close()
        reads.close()
        await log.close()
        journal.close()
        views.close()
        lock.release()


def views_child(folder: DataFolder, socket: Path) -> ChildProcess:
    """The process that keeps the views of this folder, and answers on `socket`."""
    return ChildProcess("cli.views", ["--data", str(folder.root), "--socket", str(socket)])


def _assemble(
    settings: Settings,
    folder: DataFolder,
    secret: bytes,
    clock: SteadyClock,
    journal: SQLiteJournal,
    log: SqliteLog,
    upstream: HttpUpstream,
    reads: HttpUpstream,
    views: ViewsFile,
) -> Embedded:
    keyring = Keyring()
    follower = KeyringFollower(keyring, SqliteLogReader(folder.log, CONTROL))
    keyring.prove = follower.try_step  # the topic is a file of this machine
    gate = MemoryGate(PARTITIONS, clock, new_id("run"), clock.passed)
    writer = FactWriter(log, clock, new_id)
    return Embedded(
        settings=settings,
        folder=folder,
        secrets=InstallationSecrets(secret),
        clock=clock,
        journal=journal,
        log=log,
        relay=Relay(journal, log),
        keyring=keyring,
        follower=follower,
        gate=gate,
        writer=writer,
        balances=RowBalances(views),
        admission=Admission(gate, writer, keyring, clock, gate.identity, lambda: clock.stepped),
        upstream=upstream,
        backends=BackendStates(),
        reads=reads,
        failed=asyncio.get_running_loop().create_future(),
    )


async def _first_admin(core: Embedded) -> None:
    """Issues a platform admin key if there is none, and keeps it where the command line finds it.

    The file is written first: a process that dies in between finds the key there, and issues that one.
    """
    if any(kind == admin_key.KIND for kind, _, _ in core.keyring.names()):
        return
    path = core.folder.admin_key
    if not path.exists():
        write_private(path, make_key(ADMIN, core.secrets.random(256)))
    secret = path.read_text().strip()

    await issue_first_admin_key(core.commands, secret)
    core.first_admin_key = secret
