"""The analytics views as the processes of distributed mode share them: rows in ClickHouse, versions and turns in PostgreSQL."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Queue

import pytest
from msgspec import structs

from domain.envelope import decode
from infra.adapters.chdb_audit import AuditChain, AuditView
from infra.adapters.chdb_engine import Analytics
from infra.adapters.chdb_sink import AnalyticsStore
from infra.adapters.chdb_usage import UsageView
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_views import Catalog
from projections.ports import Batch, Event, Mark, Outcome, Store
from tests.contract import test_analytics_sink as in_process
from tests.contract.sink_contract import _batch, engine
from tests.contract.test_clickhouse_sink import clickhouse, engine_in_process
from tests.controlgen import ControlTraffic
from tests.factgen import Traffic, batches
from tests.postgres import PostgresServer

__all__ = ["clickhouse", "engine_in_process"]  # fixtures


@pytest.mark.usefixtures("postgres_class")
class Shared(in_process.AnalyticsSinkContract):
    """With a catalog in a database of its own for every test."""

    postgres: PostgresServer

    @contextmanager
    def fresh(self) -> Iterator[Store]:
        with self.postgres.database() as url:
            rows = PostgresViews(url)
            yield AnalyticsStore(self.analytics, Catalog(rows), self.view)
            rows.close()


class TestUsage(Shared, in_process.TestUsage):
    """Usage."""


class TestAudit(Shared, in_process.TestAudit):
    """Audit."""


def test_processes_that_make_the_first_version_at_once_agree(
    postgres: PostgresServer, engine_in_process: Analytics
) -> None:
    """Six of them: one version, which is live."""
    with postgres.database() as url:
        rows = [PostgresViews(url) for _ in range(6)]
        stores = [AnalyticsStore(engine_in_process, Catalog(each), UsageView) for each in rows]
        with ThreadPoolExecutor(6) as threads:
            assert set(threads.map(lambda store: store.live(), stores)) == {1}
        for each in rows:
            each.close()


@pytest.mark.parametrize("view", [UsageView, AuditView])
def test_two_workers_that_feed_the_same_partition_apply_each_batch_once(
    postgres: PostgresServer, engine_in_process: Analytics, view: type[UsageView] | type[AuditView]
) -> None:
    """One that lost its partition and does not know it yet: rows and watermark are as if one of them had done it all."""
    log = Traffic(seed=9, orgs=("acme",)).run(60).log if view is UsageView else ControlTraffic(9).run(60).log
    with postgres.database() as url:
        rows = [PostgresViews(url) for _ in range(2)]
        stores = [AnalyticsStore(engine_in_process, Catalog(each), view) for each in rows]
        sinks = [store.open(store.live()) for store in stores]

        def feed(number: int) -> None:
            feeding = engine(stores[number], sinks[number])
            for batch in batches(log.all(), 10):
                feeding.feed(batch)

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(feed, range(2)))
        calm = stores[0].open(stores[0].create())
        engine(stores[0], calm).feed(log.all())
        assert sinks[1].fingerprint() == calm.fingerprint()
        for each in rows:
            each.close()


def test_a_chain_that_two_processes_append_to_holds(postgres: PostgresServer, engine_in_process: Analytics) -> None:
    """A parked event is replayed by one while the other goes on: no entry follows on one that another follows on already."""
    log = ControlTraffic(4).run(40).log
    with postgres.database() as url:
        rows = [PostgresViews(url) for _ in range(2)]
        stores = [AnalyticsStore(engine_in_process, Catalog(each), AuditView) for each in rows]
        feeding, helping = (store.open(store.live()) for store in stores)
        first = _batch(stores[0], log, {}, 20)
        feeding.apply(first)
        parked = _batch(stores[0], log, {0: first.spans[0].end}, 1).spans[0]
        feeding.apply(Batch([structs.replace(parked, events=[])]))
        helping.replay(parked.events[0])
        feeding.apply(_batch(stores[0], log, {0: parked.end}, 1 << 30))
        check = AuditChain(engine_in_process, Catalog(rows[0])).verify()
        assert (check.broken_at, check.entries) == (None, feeding.marks()[0].events)
        for each in rows:
            each.close()


def test_a_chain_holds_while_two_processes_append_to_it_at_once(
    postgres: PostgresServer, engine_in_process: Analytics
) -> None:
    """One feeds on while the other replays what was parked, as fast as either can: every event is one entry of one chain."""
    log = ControlTraffic(6).run(80).log
    times = Counter(decode(record.value).stream for record in log.all())
    alone = {stream for stream, count in times.items() if count == 1}
    assert len(alone) > 5
    with postgres.database() as url:
        rows = [PostgresViews(url) for _ in range(2)]
        stores = [AnalyticsStore(engine_in_process, Catalog(each), AuditView) for each in rows]
        feeding, helping = (store.open(store.live()) for store in stores)
        parked: Queue[Event | None] = Queue()

        def feed() -> None:
            at: dict[int, Mark] = {}
            while (batch := _batch(stores[0], log, at, 3)).spans:
                (span,) = batch.spans
                kept = [event for event in span.events if event.envelope.stream not in alone]
                assert feeding.apply(Batch([structs.replace(span, events=kept)])) is Outcome.APPLIED
                for event in span.events:
                    if event.envelope.stream in alone:
                        parked.put(event)
                at = {0: span.end}

        def help_out() -> None:
            while (event := parked.get()) is not None:
                helping.replay(event)

        with ThreadPoolExecutor(2) as threads:
            helped = threads.submit(help_out)
            try:
                feed()
            finally:
                parked.put(None)
            helped.result()
        check = AuditChain(engine_in_process, Catalog(rows[0])).verify()
        assert (check.broken_at, check.entries) == (None, feeding.marks()[0].events)
        for each in rows:
            each.close()
