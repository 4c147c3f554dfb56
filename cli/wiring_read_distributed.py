"""The composition root of the read API in distributed mode: views in PostgreSQL and ClickHouse that workers feed from Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from api.metrics import Metrics
from api.read.deps import ReadDeps
from cli.running import every, running
from cli.serving import Starting
from cli.settings import Settings
from cli.stores import all_stores
from cli.wiring_distributed import PROOF_SECONDS
from commands.ports import Clock, Secrets
from domain.errors import NotReady
from infra.adapters.chdb_audit import AuditChain
from infra.adapters.chdb_reads_audit import AnalyticsAuditTrail
from infra.adapters.chdb_reads_facts import AnalyticsFacts
from infra.adapters.chdb_reads_requests import AnalyticsRequests
from infra.adapters.chdb_reads_usage import AnalyticsUsages
from infra.adapters.clickhouse import open_analytics
from infra.adapters.ids import new_id
from infra.adapters.kafka_bulk import KafkaBulkReader
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.kafka_tail import KafkaTail
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_directory import RowDirectory
from infra.adapters.row_parking import RowParking
from infra.adapters.row_reads import RowBucketSums
from infra.adapters.row_views import Catalog
from infra.adapters.shared_reader import SharedReader
from projections import audit, usage
from projections.keyring import Keyring
from projections.ports import CONTROL, FACTS
from projections.reads.budgets import Budgets
from projections.reads.events import Events
from projections.reads.freshness import Freshness
from projections.reads.past import Past
from projections.reads.standstill import Standstill
from projections.rebuild import Projection, Rebuilder
from projections.stored_view import StoredView

_LOOK_SECONDS = 1.0


@asynccontextmanager
async def open_distributed_reads(
    settings: Settings,
    keyring: Keyring,
    secrets: Secrets,
    clock: Clock,
    metrics: Metrics,
    starting: Starting,
    failed: "asyncio.Future[None]",
) -> AsyncIterator[ReadDeps]:
    """What the read API stands on, once PostgreSQL is there. `keyring` is fed by somebody else, on this event loop.

    While ClickHouse or Kafka is away, what needs them raises `Unavailable`, and nothing else does. `settings` has kafka,
    postgres, clickhouse and secret. Raises `Invalid` if its ClickHouse is none.
    """
    kafka, postgres, clickhouse = settings.kafka or "", settings.postgres or "", settings.clickhouse or ""
    async with AsyncExitStack() as stack:
        analytics = open_analytics(clickhouse, later=True)
        stack.callback(analytics.close)
        file = await starting.until("PostgreSQL", lambda: PostgresViews(postgres))
        stack.callback(file.close)
        readers = {topic: SharedReader(partial(KafkaLogReader, kafka, topic)) for topic in (CONTROL, FACTS)}
        tails = {topic: KafkaTail(kafka, topic) for topic in (CONTROL, FACTS)}
        for topic, reader in readers.items():
            stack.callback(reader.close)
            stack.callback(tails[topic].close)
        catalog, parking = Catalog(file), RowParking(file)
        stores = all_stores(catalog, analytics)
        views = {store.name: StoredView(store, parking, policy, clock) for store, policy, _ in stores}
        projections = {
            store.name: Projection(store, views[store.name], partial(KafkaBulkReader, kafka, store.topic))
            for store, *_ in stores
        }
        freshness = Freshness(views, tails, parking, clock)
        standstill = Standstill(freshness, views)
        metrics.gauges("tollhouse_view_lag_records", "Records that a view lacks", "view", standstill.lags)
        look = partial(every, _LOOK_SECONDS, partial(asyncio.to_thread, standstill.look))
        await stack.enter_async_context(running(failed, {"views": look}))

        def live_usage() -> int | None:
            return catalog.live(usage.NAME)

        def live_audit() -> int | None:
            return catalog.live(audit.NAME)

        trail = AnalyticsAuditTrail(analytics, live_audit, AuditChain(analytics, catalog))
        yield ReadDeps(
            keyring=keyring,
            refresh=lambda: _fresh(keyring),
            prove=lambda: proved(keyring),
            secrets=secrets,
            clock=clock,
            new_id=new_id,
            freshness=freshness,
            budgets=Budgets(RowDirectory(file), RowBucketSums(file)),
            past=Past(readers[CONTROL], readers[FACTS]),
            usages=AnalyticsUsages(analytics, live_usage),
            requests=AnalyticsRequests(analytics, live_usage),
            audit=trail,
            events=Events(trail, AnalyticsFacts(analytics, live_usage)),
            views=views,
            rebuilder=Rebuilder(projections, parking, clock),
            parking=parking,
            live=catalog.live,
            failing=standstill.reasons,
            ending=lambda: starting.ending,
        )


async def _fresh(keyring: Keyring) -> None:
    if not await keyring.renewed():
        raise NotReady("the view of keys is not fresh: Kafka's control topic is not answering")


async def proved(keyring: Keyring) -> None:
    """Returns once the keyring holds everything that was in the log when this was called. Raises `NotReady`."""
    asked = time.monotonic()
    while not keyring.holds(asked):
        if time.monotonic() - asked > PROOF_SECONDS:
            raise NotReady("the view of keys is not fresh: Kafka's control topic is not answering")
        await asyncio.sleep(0.01)
