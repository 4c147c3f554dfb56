"""The composition root of a worker: every projection with its store, its engine and its lane, fed from Kafka by Faust."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from cli.settings import Settings
from cli.wiring import utc_now
from cli.wiring_views import ANALYTICS_LINGER, GC_THRESHOLD
from domain.errors import FieldError, Invalid, Unavailable
from infra.adapters.chdb_audit import AuditView
from infra.adapters.chdb_engine import Analytics
from infra.adapters.chdb_sink import AnalyticsStore
from infra.adapters.chdb_usage import UsageView
from infra.adapters.clickhouse import check_named, open_analytics
from infra.adapters.kafka_headers import linked
from infra.adapters.kafka_topics import check_topics
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_directory import DirectoryView
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Catalog, RowStore
from projections.engine import Engine, Policy
from projections.ports import Store
from streams.faust_lane import Lane
from streams.faust_runner import FaustRunner

NEEDED = ("kafka", "postgres", "clickhouse")

STILL_SECONDS = 30.0
"""A view that is behind and takes nothing in for this long stands still."""

_AGAIN_SECONDS = 0.5
_TELL_SECONDS = 10.0

_log = logging.getLogger("tollhouse.worker")
_T = TypeVar("_T")


@dataclass(slots=True)
class Worker:
    """The projections of this process, being fed."""

    runner: FaustRunner
    lanes: Sequence[Lane]

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
        return reasons


@asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Worker]:
    """Waits for what it needs and feeds the views until the context ends. Raises `Invalid` naming settings that are missing."""
    kafka, postgres, clickhouse = _needed(settings)
    gc.set_threshold(GC_THRESHOLD, 50, 50)
    async with AsyncExitStack() as stack:
        views = await _awaited("PostgreSQL", lambda: PostgresViews(postgres))
        stack.callback(views.close)
        analytics = await _awaited("ClickHouse", lambda: open_analytics(clickhouse))
        stack.callback(analytics.close)
        await _awaited("Kafka", lambda: _topics_are_right(kafka))
        lanes = await _awaited("the stores of the views", lambda: _lanes(views, analytics))
        runner = FaustRunner(kafka, lanes, linked)
        stack.push_async_callback(runner.stop)
        await runner.start()
        yield Worker(runner, lanes)


def _needed(settings: Settings) -> tuple[str, str, str]:
    found = [getattr(settings, name) for name in NEEDED]
    missing = [name for name, value in zip(NEEDED, found, strict=True) if value is None]
    if missing:
        raise Invalid(*(FieldError(f"TOLLHOUSE_{name.upper()}", "must be set") for name in missing))
    kafka, postgres, clickhouse = found
    check_named(clickhouse)
    return kafka, postgres, clickhouse


def _lanes(views: PostgresViews, analytics: Analytics) -> list[Lane]:
    catalog, parking = Catalog(views), RowParking(views)
    stores: list[tuple[Store, Policy, float]] = [
        (RowStore(catalog, DirectoryView()), Policy.PARK_ORG, 0.0),
        (RowStore(catalog, BalancesView()), Policy.PARK_ORG, 0.0),
        (AnalyticsStore(analytics, catalog, UsageView), Policy.PARK_ONE, ANALYTICS_LINGER),
        (AnalyticsStore(analytics, catalog, AuditView), Policy.PARK_ONE, 0.0),
    ]
    lanes = []
    for store, policy, linger in stores:
        version = store.live()
        engine = Engine(store.name, store.topic, store.open(version), parking, policy, utc_now)
        lanes.append(Lane(store, engine, version, linger))
    return lanes


def _topics_are_right(servers: str) -> None:
    if wrong := check_topics(servers):
        raise Unavailable("; ".join(wrong) + " (`tollhouse bootstrap` makes topics)", code="log_unavailable")


async def _awaited(name: str, work: Callable[[], _T]) -> _T:
    """What `work` answers once it is available; meanwhile the log says what is awaited."""
    told, at = "", 0.0
    while True:
        try:
            return await asyncio.to_thread(work)
        except Unavailable as error:
            if error.message != told or time.monotonic() - at > _TELL_SECONDS:
                told, at = error.message, time.monotonic()
                _log.warning("waiting for %s: %s", name, error)
            await asyncio.sleep(_AGAIN_SECONDS)
