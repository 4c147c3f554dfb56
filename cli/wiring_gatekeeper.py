"""The composition root of the gatekeeper: opens the gate when it is new or was lost, settles it, and ends what nobody
else will end.

It belongs to a worker process; of all of them the one that holds a lease opens and keeps. Settling needs no lease: where the one
whose task it is cannot do it, because PostgreSQL is away, another goes on. A second gatekeeper does no harm anywhere.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cli.running import every, running
from cli.serving import Starting
from cli.settings import Settings
from cli.wiring_distributed import LEASE_SECONDS, Core, core_of, forwarded_later, require_topics
from commands.admission import DELTA
from commands.handling import Commands
from commands.keeper import Keeper
from commands.leading import Leader
from commands.opening import Opening
from commands.overruns import Overruns
from commands.ports import FactRecord
from domain.errors import Conflict
from domain.ids import PARTITIONS
from infra.adapters.ids import new_id
from infra.adapters.kafka_bulk import KafkaBulkReader
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.postgres_journal import PostgresJournal
from infra.adapters.postgres_lease import PostgresLease
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.redis_gate import RedisGate
from infra.adapters.row_holds import RowBalances
from projections.keyring import FRESH
from projections.ports import FACTS
from streams.gate_follower import GateFollower
from streams.gate_watch import LOOK_SECONDS, GateWatch

GATEKEEPER = "gatekeeper"
"""Name of the lease. Stored format."""

KEEPER_SECONDS = 1.0

_log = logging.getLogger("tollhouse.gatekeeper")


@dataclass(slots=True)
class Gatekeeper:
    """One that is connected. `run` it as a task."""

    core: Core
    gate: RedisGate
    watch: GateWatch
    journal: PostgresJournal
    views: PostgresViews
    lease: PostgresLease
    settling: GateFollower
    facts: KafkaLogReader
    _leader: Leader = field(init=False)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._leader = Leader(self.lease, self._lead)

    @property
    def leading(self) -> bool:
        """Whether opening and keeping are this one's task now."""
        return self._leader.leading

    async def run(self) -> None:
        """Goes on for ever. Raises what is a bug; what is unavailable is tried again."""
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        works = {
            "keyring": self.core.follower.run,
            "gate": lambda: every(LOOK_SECONDS, self.watch.look),
            "settling": self.settling.run,
            "gatekeeper": self._leader.run,
        }
        async with running(failed, works):
            await failed

    def reasons(self) -> list[str]:
        """Why the gate is not in good hands now; empty when it is."""
        reasons = []
        if not self.core.keyring.fresh(time.monotonic()):
            reasons.append("the gatekeeper's view is not fresh: Kafka's control topic is not answering")
        if not self.watch.answers:
            reasons.append("the gate does not answer: waiting for Redis")
        elif not self.watch.open:
            reasons.append(
                "the gate is not open yet: it is being opened, or waits for a control process to lead the relay"
            )
        return reasons

    def read(self, partition: int, offset: int, limit: int) -> Sequence[FactRecord]:
        """For opening. One thread at a time, also where an opening that was given up is still reading."""
        with self._reading:
            return self.facts.read(partition, offset, limit)

    # -- by the one that holds the lease

    async def _lead(self) -> None:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        core = self.core
        keeper = Keeper(self.gate, core.writer, lambda: RowBalances(self.views), core.keyring, core.clock)
        commands = Commands(self.journal, core.clock, core.secrets, forwarded_later)
        overruns = Overruns(lambda: RowBalances(self.views), commands)
        works = {
            "opening": self._keep_open,
            "keeper": lambda: every(KEEPER_SECONDS, keeper.tick),
            "overruns": lambda: every(KEEPER_SECONDS, overruns.tick),
        }
        async with running(failed, works):
            await failed

    async def _keep_open(self) -> None:
        while True:
            if self.core.keyring.fresh(time.monotonic()):  # else the epochs that it knows may be of the past
                await self.watch.look()
                if not self.watch.open:
                    await self._open()
            await asyncio.sleep(LOOK_SECONDS)

    async def _open(self) -> None:
        core, began = self.core, time.monotonic()
        _log.warning("the gate %s is closed: opening it", self.watch.identity)
        opening = Opening(
            gate=self.gate,
            journal=self.journal,
            relayed=core.follower.reached,
            writer=core.writer,
            balances=RowBalances(self.views),
            facts=self,
            clock=core.clock,
            new_id=new_id,
            quiet_seconds=FRESH + DELTA,
        )
        try:
            await opening.open(range(PARTITIONS), abandoned=False)
        except Conflict as error:
            _log.warning("another gatekeeper is opening the gate too: %s", error)
        else:
            _log.warning("the gate %s is open again after %.1f s", self.watch.identity, time.monotonic() - began)


@asynccontextmanager
async def open_gatekeeper(settings: Settings, starting: Starting | None = None) -> AsyncIterator[Gatekeeper]:
    """Connects one, once PostgreSQL and the topics are there; `settings` has kafka, postgres, redis and secret."""
    assert settings.postgres is not None
    assert settings.redis is not None
    url, starting = settings.postgres, starting or Starting()
    core = core_of(settings)
    gate = RedisGate(settings.redis)
    watch = GateWatch(gate, core.keyring, PARTITIONS)
    facts = KafkaLogReader(core.kafka, FACTS)
    closing = []
    settling = None
    try:
        await starting.until("Kafka", lambda: require_topics(core.kafka))
        journal = await starting.until("PostgreSQL", lambda: PostgresJournal(url, core.secret, core.clock))
        closing.append(journal.close)
        views = await starting.until("PostgreSQL", lambda: PostgresViews(url))
        closing.append(views.close)
        lease = await starting.until("PostgreSQL", lambda: PostgresLease(url, GATEKEEPER, new_id("prc"), LEASE_SECONDS))
        closing.append(lease.close)

        def leading() -> bool:
            return keeper.leading

        # Settling has a worker's interpreter to share, and must keep up with all gateways: librdkafka reads for it.
        settling = GateFollower(
            gate, KafkaBulkReader(core.kafka, FACTS), lambda: watch.identity, core.keyring.epoch, leading
        )
        keeper = Gatekeeper(core, gate, watch, journal, views, lease, settling, facts)
        yield keeper
        await core.writer.drain()
    finally:
        if settling is not None:
            await settling.close()
        await gate.close()
        await core.close()
        for close in (*closing, facts.close):
            await asyncio.to_thread(close)
