"""``tollhouse read``: answers reads from the views that workers feed."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uvloop

from api.metrics import Metrics
from api.read.app import create_app
from api.read.deps import ReadDeps
from api.site import App
from cli import log_lines
from cli.paths import READ_SIDE, READ_SIDE_OF_ADMIN
from cli.running import allow_many_files, running
from cli.serving import Starting, serve_process
from cli.settings import Settings
from cli.wiring_distributed import PATIENCE
from cli.wiring_read_distributed import open_distributed_reads
from infra.adapters.clickhouse import check_named
from infra.adapters.clock import SteadyClock
from infra.adapters.kafka_bulk import KafkaBulkReader
from infra.adapters.secrets import InstallationSecrets
from projections.keyring import Keyring
from projections.ports import CONTROL
from streams.control_follower import ControlFollower


def serve_reads(settings: Settings) -> None:
    """Runs until SIGTERM. `settings` has kafka, postgres, clickhouse and secret. Raises `Invalid` if its ClickHouse is none."""
    check_named(settings.clickhouse or "")
    log_lines.configure()
    allow_many_files()
    metrics = Metrics()
    uvloop.run(serve_process(settings, metrics, lambda starting, failed: _open(settings, metrics, starting, failed)))


@dataclass(slots=True)
class Reads:
    """A read process that runs. See `cli.serving.Process`."""

    deps: ReadDeps

    def mounts(self) -> Mapping[str, App]:
        return read_mounts(self.deps)

    def reasons(self) -> list[str]:
        """Why reads are refused now; a view that stands still is told in every answer instead, by its `as_of`."""
        if self.deps.keyring.fresh(time.monotonic()):
            return []
        return ["the view of keys is not fresh: Kafka's control topic is not answering"]


def read_mounts(deps: ReadDeps) -> Mapping[str, App]:
    """The read API and the operators' endpoints of the projections, by path."""
    return dict.fromkeys((*READ_SIDE, *READ_SIDE_OF_ADMIN), create_app(deps))


@asynccontextmanager
async def _open(
    settings: Settings, metrics: Metrics, starting: Starting, failed: "asyncio.Future[None]"
) -> AsyncIterator[Reads]:
    assert settings.kafka is not None
    assert settings.secret is not None
    keyring, secrets = Keyring(), InstallationSecrets(settings.secret.get_secret_value().encode())
    follower = ControlFollower(keyring, KafkaBulkReader(settings.kafka, CONTROL, patience=PATIENCE))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(follower.close)
        await stack.enter_async_context(running(failed, {"keyring": follower.run}))
        opening = open_distributed_reads(settings, keyring, secrets, SteadyClock(), metrics, starting, failed)
        yield Reads(await stack.enter_async_context(opening))
