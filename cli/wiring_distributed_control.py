"""The composition root of a control process: the journal in PostgreSQL, and its relay to Kafka in one process at a time."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from api.admin.app import create_app
from api.admin.call import AdminDeps
from api.metrics import Metrics
from api.read.deps import ReadDeps
from api.site import App
from cli.read import read_mounts
from cli.running import every, running
from cli.serving import Starting
from cli.settings import Settings
from cli.wiring_distributed import LEASE_SECONDS, PROOF_SECONDS, RELAY, Core, core_of, require_topics
from cli.wiring_read_distributed import open_distributed_reads
from commands.handling import Commands
from commands.leading import Leader
from commands.reconcile import Reconciliation
from commands.relay import PATIENCE, Relay
from domain.errors import LogUnavailable, Unavailable
from infra.adapters.ids import new_id
from infra.adapters.kafka_control import KafkaControlLog
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.keyring_directory import ProvenDirectory
from infra.adapters.postgres_journal import PostgresJournal
from infra.adapters.postgres_lease import PostgresLease
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_holds import RowBalances
from projections.ports import FACTS

THREADS = 128
"""Commands that wait for the journal at once, at least half of them; the relay and its lease need threads too."""

_LOOK_SECONDS = 1.0
_log = logging.getLogger("tollhouse")
_ERASE_SECONDS = 3600.0


@dataclass(slots=True)
class Control:
    """A control process that runs. See `cli.serving.Process`."""

    settings: Settings
    core: Core
    journal: PostgresJournal
    views: PostgresViews
    relay: Relay
    leader: Leader
    facts: KafkaLogReader
    reads: ReadDeps | None
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _journal: str | None = None
    _behind: tuple[int, float] | None = None
    """Since when (monotonic) the topic stands at a position that the journal is past."""

    def mounts(self) -> Mapping[str, App]:
        core = self.core
        deps = AdminDeps(
            commands=Commands(self.journal, core.clock, core.secrets, self.acknowledged, core.keyring),
            directory=ProvenDirectory(core.keyring, PROOF_SECONDS),
            secrets=core.secrets,
            balances=lambda: RowBalances(self.views),
            reconciliation=lambda: Reconciliation(
                RowBalances(self.views), core.writer, core.keyring, self._ends_of_facts
            ),
            clock=core.clock,
            max_body=self.settings.max_body,
        )
        return {"/admin/v1": create_app(deps), **(read_mounts(self.reads) if self.reads is not None else {})}

    def reasons(self) -> list[str]:
        """Why commands are refused now; empty when they are not."""
        reasons = [] if self._journal is None else [self._journal]
        if not self.core.keyring.fresh(time.monotonic()):
            reasons.append("the view of keys is not fresh: Kafka's control topic is not answering")
        if self._behind is not None and time.monotonic() - self._behind[1] > PATIENCE:
            reasons.append("commands are recorded but not forwarded: no control process leads the relay")
        if stepped := self.core.clock.stepped:
            reasons.append(f"the system's clock leapt by {stepped:.0f} s: put it right, or start the process again")
        return reasons

    async def acknowledged(self, position: int) -> None:
        """Returns once everything up to a journal position is in the topic and in this process's view, whichever process
        forwards it. Raises `LogUnavailable` when that takes too long."""
        if self.leader.leading:
            self.relay.wake()
        try:
            await self.core.follower.reached(position, PATIENCE)
        except TimeoutError:
            raise LogUnavailable(
                "the change is recorded but not yet forwarded; it will be once the log is back, repeat the command then"
            ) from None

    async def look(self) -> None:
        """Asks the journal whether it has something that is not in the topic."""
        at = self.core.keyring.position
        try:
            waiting = await asyncio.to_thread(self.journal.after, at, 1)
        except Unavailable as error:
            self._journal = f"the journal does not answer: {error.message}"
            raise
        self._journal = None
        if not waiting:
            self._behind = None
        elif self._behind is None or self._behind[0] != at:
            self._behind = at, time.monotonic()

    def _ends_of_facts(self) -> Sequence[int]:
        with self._asking:
            return self.facts.ends()


@asynccontextmanager
async def open_control(
    settings: Settings, metrics: Metrics, starting: Starting, failed: "asyncio.Future[None]"
) -> AsyncIterator[Control]:
    """Runs a control process until the context ends, once PostgreSQL and the topics are there."""
    assert settings.postgres is not None
    url = settings.postgres
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "control"))
    core = core_of(settings)
    relayed = KafkaControlLog(core.kafka, landed=core.follower.landed)
    facts = KafkaLogReader(core.kafka, FACTS)
    closing = []
    try:
        await starting.until("Kafka", lambda: require_topics(core.kafka))
        journal = await starting.until("PostgreSQL", lambda: PostgresJournal(url, core.secret, core.clock))
        closing.append(journal.close)
        views = await starting.until("PostgreSQL", lambda: PostgresViews(url))
        closing.append(views.close)
        lease = await starting.until("PostgreSQL", lambda: PostgresLease(url, RELAY, new_id("prc"), LEASE_SECONDS))
        closing.append(lease.close)
        relay = Relay(journal, relayed)
        control = Control(settings, core, journal, views, relay, Leader(lease, relay.run), facts, None)
        metrics.gauge(
            "tollhouse_relay_leading", "Whether this process forwards the journal", lambda: int(control.leader.leading)
        )
        works = {
            "keyring": core.follower.run,
            "relay": control.leader.run,
            "journal": lambda: every(_LOOK_SECONDS, control.look),
            "ledger": lambda: every(_ERASE_SECONDS, lambda: asyncio.to_thread(journal.erase_secrets)),
        }
        async with running(failed, works), AsyncExitStack() as reading:
            if settings.clickhouse is None:
                _log.warning("reads are not answered here: TOLLHOUSE_CLICKHOUSE is not set")
            else:
                reads = open_distributed_reads(
                    settings, core.keyring, core.secrets, core.clock, metrics, starting, failed
                )
                control.reads = await reading.enter_async_context(reads)
            await _caught_up(control, starting)
            yield control
            await core.writer.drain()
    finally:
        await relayed.close()
        await core.close()
        for close in (*closing, facts.close):
            await asyncio.to_thread(close)


async def _caught_up(control: Control, starting: Starting) -> None:
    """Returns once what was recorded before this start is in the topic: the first admin key is, to begin with."""
    end = await starting.until("PostgreSQL", lambda: control.journal.append((), {}, None))
    starting.awaited = "waiting for a control process to forward what was recorded before"
    await control.core.follower.reached(end)
