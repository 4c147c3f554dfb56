"""``tollhouse world``: the World service, a Faust processor with a projection of its own and an endpoint that reads it.

Built of public parts only: take it as the pattern of a composition root for a service of your own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uvloop

from api.metrics import Metrics
from api.site import App
from api.world import WorldDeps, create_app
from cli.running import running
from cli.serving import Starting, serve_process
from cli.settings import Settings
from cli.wiring_distributed import PATIENCE, require_topics
from cli.wiring_read_distributed import proved
from cli.worker import configure_logs
from domain.credential import ADMIN, well_formed
from domain.errors import Unauthenticated
from infra.adapters.clock import SteadyClock
from infra.adapters.kafka_bulk import KafkaBulkReader
from infra.adapters.kafka_headers import linked
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Catalog, RowStore
from infra.adapters.row_world import RowPaces, WorldView
from infra.adapters.secrets import InstallationSecrets
from projections.engine import Engine, Policy
from projections.keyring import Keyring
from projections.ports import CONTROL
from streams.control_follower import ControlFollower
from streams.faust_lane import Lane
from streams.faust_runner import FaustRunner

GROUP = "tollhouse-world"
"""A consumer group of its own: whatever becomes of it, nobody else waits. Stored format."""


def serve_world(settings: Settings) -> None:
    """Runs until SIGTERM. `settings` has kafka, postgres and secret."""
    configure_logs()
    metrics = Metrics()
    uvloop.run(serve_process(settings, metrics, lambda starting, failed: _open(settings, metrics, starting, failed)))


@dataclass(slots=True)
class World:
    """A World service that runs. See `cli.serving.Process`."""

    lane: Lane
    app: App

    def mounts(self) -> Mapping[str, App]:
        """See `Process`."""
        return {"/world/": self.app}

    def reasons(self) -> list[str]:
        """Why its answers may be old."""
        return [] if self.lane.error is None else [f"projection {self.lane.name}: {self.lane.error}"]


@asynccontextmanager
async def _open(
    settings: Settings, metrics: Metrics, starting: Starting, failed: "asyncio.Future[None]"
) -> AsyncIterator[World]:
    assert settings.kafka is not None
    assert settings.postgres is not None
    assert settings.secret is not None
    kafka, postgres = settings.kafka, settings.postgres
    clock, keyring = SteadyClock(), Keyring()
    secrets = InstallationSecrets(settings.secret.get_secret_value().encode())
    async with AsyncExitStack() as stack:
        file = await starting.until("PostgreSQL", lambda: PostgresViews(postgres))
        stack.callback(file.close)
        await starting.until("Kafka", lambda: require_topics(kafka))
        store = RowStore(Catalog(file), WorldView())
        version = await starting.until("the tables of the view", store.live)
        engine = Engine(store.name, store.topic, store.open(version), RowParking(file), Policy.PARK_ONE, clock)
        lane = Lane(store, engine, version)
        runner = FaustRunner(kafka, [lane], linked, failed, GROUP)
        stack.push_async_callback(runner.stop)
        await runner.start()
        follower = ControlFollower(keyring, KafkaBulkReader(kafka, CONTROL, patience=PATIENCE))
        stack.push_async_callback(follower.close)
        await stack.enter_async_context(running(failed, {"keyring": follower.run}))
        metrics.gauge(
            "tollhouse_world_lag_events", "Records of this process's partitions that the view lacks", lane.lag
        )

        async def sees(key: str) -> Callable[[str], bool]:
            await proved(keyring)
            found = keyring.admin(secrets.hash(key)) if well_formed(key, ADMIN) else None
            if found is None:
                raise Unauthenticated("no valid key: send Authorization: Bearer th_ak_…")
            org = found[1].org
            return lambda asked: org in (None, asked)

        yield World(lane, create_app(WorldDeps(RowPaces(file), sees, clock, lane.lag)))
