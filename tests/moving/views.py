"""The views of a distributed installation, made from Kafka, and what they hash to."""

import time
from datetime import UTC, datetime
from pathlib import Path

from infra.adapters.chdb_audit import AuditView
from infra.adapters.chdb_engine import in_process
from infra.adapters.chdb_sink import AnalyticsStore
from infra.adapters.chdb_usage import UsageView
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_directory import DirectoryView
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Catalog, RowStore
from infra.stack import Stack
from projections.engine import Engine, Policy
from projections.ports import Store
from streams.local_runner import Feed, LocalRunner
from tests.waiting import PATIENCE


def hashes(stack: Stack, folder: Path) -> dict[str, tuple[int, str]]:
    """Of each projection: events, and the hash of the view that all of the log makes."""
    environ = stack.environment
    file, analytics = PostgresViews(environ["TOLLHOUSE_POSTGRES"]), in_process(folder / "analytics")
    catalog, parking = Catalog(file), RowParking(file)
    stores: list[Store] = [
        RowStore(catalog, DirectoryView()),
        RowStore(catalog, BalancesView()),
        AnalyticsStore(analytics, catalog, UsageView),
        AnalyticsStore(analytics, catalog, AuditView),
    ]
    readers = [KafkaLogReader(environ["TOLLHOUSE_KAFKA"], store.topic) for store in stores]
    feeds = []
    for store, reader in zip(stores, readers, strict=True):
        engine = Engine(store.name, store.topic, store.open(store.live()), parking, Policy.STOP, _now)
        feeds.append(Feed(engine, reader, _now))
    runner = LocalRunner(feeds)
    runner.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while any(health.as_of is None for health in runner.health().values()):
            assert time.monotonic() < deadline, runner.health()
            time.sleep(0.02)
        return {
            feed.engine.name: (fingerprint.events, fingerprint.digest)
            for feed in feeds
            for fingerprint in [feed.engine.sink.fingerprint()]
        }
    finally:
        runner.stop()
        for reader in readers:
            reader.close()
        analytics.close()
        file.close()


def _now() -> datetime:
    return datetime.now(UTC)
