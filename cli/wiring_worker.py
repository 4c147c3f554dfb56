"""The composition root of a worker: every projection with its store, its engine and its lane, fed from Kafka by Faust; and the
gatekeeper beside them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from api.metrics import Metrics
from api.site import App
from cli.running import running, search_cycles_seldom
from cli.serving import Starting
from cli.settings import Settings
from cli.stores import all_stores
from cli.wiring import utc_now
from cli.wiring_distributed import require_topics
from cli.wiring_gatekeeper import Gatekeeper, open_gatekeeper
from infra.adapters.chdb_engine import Analytics
from infra.adapters.clickhouse import check_named, open_analytics
from infra.adapters.kafka_headers import linked
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Catalog
from projections.engine import Engine
from streams.faust_lane import Lane
from streams.faust_runner import FaustRunner

STILL_SECONDS = 30.0
"""A view that is behind and takes nothing in for this long stands still."""

SILENT_SECONDS = 10.0
"""Kafka answers a question for new records within two seconds, also if there are none."""


@dataclass(slots=True)
class Feeding:
    """The projections of this process, being fed. See `cli.serving.Process`."""

    runner: FaustRunner
    lanes: Sequence[Lane]

    def mounts(self) -> Mapping[str, App]:
        """It has its health only."""
        return {}

    def reasons(self) -> list[str]:
        """Why views may fall behind; empty when they do not. A worker for whom no partition is left is ready."""
        reasons = []
        if self.runner.assigned is None:
            reasons.append("the consumer group has given this worker no place yet")
        for lane in self.lanes:
            still, lag = time.monotonic() - lane.moved_at, lane.lag()
            if lane.error is not None:
                reasons.append(f"projection {lane.name}: {lane.error}")
            elif lag and still > STILL_SECONDS:
                reasons.append(f"projection {lane.name} is {lag} records behind and took none in for {still:.0f} s")
        silence = self.runner.silence
        if silence > SILENT_SECONDS and not any(lane.lag() for lane in self.lanes):
            reasons.append(f"Kafka has not answered for {silence:.0f} s")
        return reasons


@dataclass(slots=True)
class Worker:
    """A worker that runs. See `cli.serving.Process`."""

    feeding: Feeding
    gatekeeper: Gatekeeper

    def mounts(self) -> Mapping[str, App]:
        """See `Feeding`."""
        return self.feeding.mounts()

    def reasons(self) -> list[str]:
        """Why views may fall behind, or the gate is not in good hands."""
        return [*self.feeding.reasons(), *self.gatekeeper.reasons()]


@asynccontextmanager
async def open_worker(
    settings: Settings, metrics: Metrics, starting: Starting, failed: "asyncio.Future[None]"
) -> AsyncIterator[Worker]:
    """Views and gatekeeper. `settings` has kafka, postgres, clickhouse, redis and secret."""
    async with (
        open_gatekeeper(settings, starting) as gatekeeper,
        running(failed, {"gatekeeper": gatekeeper.run}),
        open_feeding(settings, metrics, starting, failed) as feeding,
    ):
        yield Worker(feeding, gatekeeper)


@asynccontextmanager
async def open_feeding(
    settings: Settings, metrics: Metrics, starting: Starting, failed: "asyncio.Future[None]"
) -> AsyncIterator[Feeding]:
    """Waits for what it needs and feeds the views until the context ends. `settings` has kafka, postgres and clickhouse."""
    kafka, postgres, clickhouse = settings.kafka, settings.postgres, settings.clickhouse
    assert kafka is not None
    assert postgres is not None
    assert clickhouse is not None
    check_named(clickhouse)
    search_cycles_seldom()
    async with AsyncExitStack() as stack:
        views = await starting.until("PostgreSQL", lambda: PostgresViews(postgres))
        stack.callback(views.close)
        analytics = await starting.until("ClickHouse", lambda: open_analytics(clickhouse))
        stack.callback(analytics.close)
        await starting.until("Kafka", lambda: require_topics(kafka))
        lanes = await starting.until("the stores of the views", lambda: _lanes(views, analytics))
        runner = FaustRunner(kafka, lanes, linked, failed)
        stack.push_async_callback(runner.stop)
        await runner.start()
        _measure(metrics, runner)
        yield Feeding(runner, lanes)


def _lanes(views: PostgresViews, analytics: Analytics) -> list[Lane]:
    catalog, parking = Catalog(views), RowParking(views)
    lanes = []
    for store, policy, linger in all_stores(catalog, analytics):
        version = store.live()
        engine = Engine(store.name, store.topic, store.open(version), parking, policy, utc_now)
        lanes.append(Lane(store, engine, version, linger))
    return lanes


def _measure(metrics: Metrics, runner: FaustRunner) -> None:
    def lags() -> Mapping[str, float]:
        return {lane.name: lane.lag() for lane in runner.lanes}

    def ages() -> Mapping[str, float]:
        now = time.monotonic()
        return {lane.name: now - lane.moved_at for lane in runner.lanes}

    def applied() -> Mapping[str, float]:
        return {lane.name: lane.applied for lane in runner.lanes}

    metrics.gauge("tollhouse_worker_partitions", "Partitions of this worker", lambda: len(runner.assigned or ()))
    metrics.gauges("tollhouse_projection_lag_events", "Records that are not in the view", "projection", lags)
    metrics.gauges("tollhouse_projection_age_seconds", "Since the view moved or had everything", "projection", ages)
    metrics.gauges("tollhouse_projection_applied_events", "Records this worker took in", "projection", applied)
