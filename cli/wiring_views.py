"""The composition root of the views: every projection of a data folder with its store, engine and feed.

`open_views` is used by the views process of a running server, and by the command line on a stopped folder.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cli.running import search_cycles_seldom
from cli.stores import all_stores
from cli.wiring import utc_now
from infra.adapters.chdb_engine import Analytics, in_process
from infra.adapters.data_folder import DataFolder, FolderLock
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Catalog
from infra.adapters.sqlite_log import SqliteLogReader
from infra.adapters.sqlite_views import ViewsFile
from projections.engine import Engine
from projections.rebuild import Projection, Rebuilder
from streams.local_runner import Feed, LocalRunner

LOCK_SECONDS = 20.0
"""A views process that lost its parent may still be ending when the next one starts."""


@dataclass(slots=True)
class Views:
    """All projections of a folder."""

    file: ViewsFile
    analytics: Analytics
    catalog: Catalog
    parking: RowParking
    engines: dict[str, Engine]
    rebuilder: Rebuilder
    runner: LocalRunner


@contextmanager
def open_views(folder: DataFolder) -> Iterator[Views]:
    """Opens them; `runner` is to be started by the caller. Raises `Conflict` if another process keeps having them."""
    search_cycles_seldom()
    lock = FolderLock(folder, "views.lock")
    lock.take(LOCK_SECONDS)
    file = ViewsFile(folder.views)
    analytics = in_process(folder.analytics)
    try:
        yield _assemble(folder, file, analytics)
    finally:
        analytics.close()
        file.close()
        lock.release()


def _assemble(folder: DataFolder, file: ViewsFile, analytics: Analytics) -> Views:
    catalog, parking = Catalog(file), RowParking(file)
    engines, feeds, projections = {}, [], {}
    for store, policy, linger in all_stores(catalog, analytics):
        engine = Engine(store.name, store.topic, store.open(store.live()), parking, policy, utc_now)
        engines[store.name] = engine
        feeds.append(Feed(engine, SqliteLogReader(folder.log, store.topic), utc_now, linger))

        def reader(topic: str = store.topic) -> SqliteLogReader:
            return SqliteLogReader(folder.log, topic)

        projections[store.name] = Projection(store, engine, reader)
    return Views(
        file, analytics, catalog, parking, engines, Rebuilder(projections, parking, utc_now), LocalRunner(feeds)
    )
