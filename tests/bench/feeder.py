"""A worker with one projection only, balances, in a consumer group of its own: what one agent takes in a second."""

import asyncio
import sys
import time

import uvloop

from cli.settings import load_settings
from cli.wiring import utc_now
from cli.worker import configure_logs
from infra.adapters.kafka_headers import linked
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Catalog, RowStore
from projections.engine import Engine, Policy
from projections.ports import FACTS
from streams.faust_lane import Lane
from streams.faust_runner import FaustRunner


async def feed(database: str) -> None:
    """Fills the balances of an empty `database` with all facts there are, and says how long it took from the first on."""
    settings = load_settings()
    assert settings.kafka is not None
    file = PostgresViews(database)
    store = RowStore(Catalog(file), BalancesView())
    version = store.live()
    engine = Engine(store.name, store.topic, store.open(version), RowParking(file), Policy.STOP, utc_now)
    lane = Lane(store, engine, version)
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    runner = FaustRunner(settings.kafka, [lane], linked, failed, f"bench-{time.time_ns()}")
    reader = KafkaLogReader(settings.kafka, FACTS)
    wanted = sum(reader.ends())
    reader.close()
    await runner.start()
    began = 0.0
    while lane.applied < wanted:
        if failed.done():
            failed.result()
        await asyncio.sleep(0.005)
        began = began or (time.monotonic() if lane.applied else 0.0)
    print(f"{wanted} {time.monotonic() - began:.3f}", flush=True)
    await runner.stop()
    file.close()


if __name__ == "__main__":
    configure_logs()
    uvloop.run(feed(sys.argv[1]))
