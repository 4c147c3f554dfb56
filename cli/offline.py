"""What operators do on a stopped folder, directly: the same use cases that a running server offers through its command API.

The folder is opened as a server would open it, so a server that runs on it is noticed (`Conflict`), and the other way round.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
import uvloop

from cli.settings import Settings
from cli.wiring import open_embedded
from cli.wiring_views import Views, open_views
from commands.reconcile import Reconciled, read_served
from domain.errors import NotFound, Unavailable
from infra.adapters.data_folder import DataFolder, FolderLock

CATCH_UP_SECONDS = 600.0

Update = Callable[[int, int], None]
Row = dict[str, Any]


def projections(settings: Settings) -> list[Row]:
    """Every projection with its version and watermark."""
    with _stopped(settings) as views:
        rows = []
        for name, health in views.runner.health().items():
            marks = views.engines[name].marks()
            watermark = {partition: mark.offset for partition, mark in sorted(marks.items())}
            events = sum(mark.events for mark in marks.values())
            version = views.catalog.live(name)
            row = {"name": name, "version": version, "watermark": watermark, "events": events, "lag": health.lag}
            rows.append({**row, "parked": len(views.parking.parked(name)), "status": "stopped"})
        return rows


def rebuild(settings: Settings, name: str, update: Update) -> Row:
    """See `projections.rebuild.Rebuilder.rebuild`. Raises `NotFound` for an unknown projection."""
    with _stopped(settings) as views:
        _known(views, name)
        row: Row = msgspec.to_builtins(views.rebuilder.rebuild(name, update))
        return row


def verify(settings: Settings, name: str | None, update: Update) -> list[Row]:
    """See `projections.rebuild.Rebuilder.verify`; of all projections if `name` is None."""
    with _stopped(settings) as views:
        names = views.rebuilder.names if name is None else [_known(views, name)]
        return [msgspec.to_builtins(views.rebuilder.verify(each, update)) for each in names]


def parked(settings: Settings) -> list[Row]:
    with _stopped(settings) as views:
        return [_parked_row(found) for found in views.parking.parked()]


def retry_parked(settings: Settings, event: str) -> Row:
    """Hands a parked event to its projection again, and what waits behind it."""
    with _stopped(settings) as views:
        found = views.parking.get(event)
        return {"id": event, "released": views.engines[found.projection].retry(event)}


def drop_parked(settings: Settings, event: str) -> Row:
    """Gives a parked event up."""
    with _stopped(settings) as views:
        found = views.parking.get(event)
        views.engines[found.projection].drop(event)
        return {"id": event, "dropped": True}


def reconcile(
    settings: Settings, records: Sequence[Row], backends: Sequence[str], as_of: datetime | None, _update: Update
) -> Row:
    """See `commands.reconcile`. Opening the folder ends what a crash left open; the views are brought up to date."""
    served = read_served(records)
    with _stopped(settings):
        pass  # it is a data folder that nobody has open

    async def run() -> Reconciled:
        async with open_embedded(settings) as core:
            with open_views(core.folder) as views:
                views.runner.start()
                try:
                    done = await core.reconciliation().run(served, backends, as_of)
                    await asyncio.to_thread(_catch_up, views)
                    return done
                finally:
                    await asyncio.to_thread(views.runner.stop)

    row: Row = msgspec.to_builtins(uvloop.run(run()))
    return row


@contextmanager
def _stopped(settings: Settings) -> Iterator[Views]:
    """The views of a folder that no server has open, caught up with its log."""
    folder = DataFolder(settings.data)
    if not folder.log.exists():
        raise NotFound(f"{folder.root} holds no log: it is no data folder, or was never started")
    lock = FolderLock(folder, "lock")
    lock.take()
    try:
        with open_views(folder) as views:
            views.runner.start()
            try:
                _catch_up(views)
                yield views
            finally:
                views.runner.stop()
    finally:
        lock.release()


def _catch_up(views: Views) -> None:
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while True:
        health = views.runner.health().values()
        failing = [f"{one.name}: {one.error}" for one in health if one.error is not None]
        if failing or time.monotonic() > deadline:
            raise Unavailable(f"the views do not catch up with the log: {'; '.join(failing) or 'too slow'}")
        if all(one.as_of is not None for one in health):
            return
        time.sleep(0.02)


def _known(views: Views, name: str) -> str:
    if name not in views.engines:
        raise NotFound(f"no projection {name!r}; there are {', '.join(views.rebuilder.names)}")
    return name


def _parked_row(found: Any) -> Row:
    row: Row = msgspec.to_builtins(found, builtin_types=(bytes,))
    record = row.pop("record")
    return {**row, "partition": record["partition"], "offset": record["offset"]}
