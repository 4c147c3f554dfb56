"""The composition root of the read API: the live views of a data folder, asked through its adapters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.read.deps import ReadDeps
from cli.wiring import utc_now
from cli.wiring_views import Views
from commands.ports import Clock
from infra.adapters.chdb_audit import AuditChain
from infra.adapters.chdb_reads_audit import AnalyticsAuditTrail
from infra.adapters.chdb_reads_facts import AnalyticsFacts
from infra.adapters.chdb_reads_requests import AnalyticsRequests
from infra.adapters.chdb_reads_usage import AnalyticsUsages
from infra.adapters.data_folder import DataFolder
from infra.adapters.ids import new_id
from infra.adapters.row_directory import RowDirectory
from infra.adapters.row_reads import RowBucketSums
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_log import SqliteLogReader
from projections import audit, usage
from projections.keyring import Keyring
from projections.ports import CONTROL, FACTS
from projections.reads.budgets import Budgets
from projections.reads.events import Events
from projections.reads.freshness import Freshness
from projections.reads.past import Past
from streams.keyring_follower import KeyringFollower


@contextmanager
def open_reads(
    folder: DataFolder,
    secret: bytes,
    views: Views,
    clock: Clock = utc_now,
    ending: Callable[[], bool] = lambda: False,
) -> Iterator[ReadDeps]:
    """What the read API of these views stands on, with a keyring of its own that it feeds itself."""
    readers = {topic: SqliteLogReader(folder.log, topic) for topic in (CONTROL, FACTS)}
    keys = SqliteLogReader(folder.log, CONTROL)
    keyring = Keyring()
    follower = KeyringFollower(keyring, keys)

    def live_usage() -> int | None:
        return views.catalog.live(usage.NAME)

    def live_audit() -> int | None:
        return views.catalog.live(audit.NAME)

    async def read_on() -> None:
        follower.step()  # the topic is a file of this machine

    trail = AnalyticsAuditTrail(views.analytics, live_audit, AuditChain(views.analytics, views.catalog))
    try:
        yield ReadDeps(
            keyring=keyring,
            refresh=read_on,
            prove=read_on,
            secrets=InstallationSecrets(secret),
            clock=clock,
            new_id=new_id,
            freshness=Freshness(views.engines, readers, views.parking, clock),
            budgets=Budgets(RowDirectory(views.file), RowBucketSums(views.file)),
            past=Past(readers[CONTROL], readers[FACTS]),
            usages=AnalyticsUsages(views.analytics, live_usage),
            requests=AnalyticsRequests(views.analytics, live_usage),
            audit=trail,
            events=Events(trail, AnalyticsFacts(views.analytics, live_usage)),
            views=views.engines,
            rebuilder=views.rebuilder,
            parking=views.parking,
            live=views.catalog.live,
            failing=lambda: {name: health.error for name, health in views.runner.health().items()},
            ending=ending,
        )
    finally:
        for reader in (*readers.values(), keys):
            reader.close()
