"""Analytics views: the rows of a batch first, its watermark after them, and keys that make a second time the same time.

Guarantees: after kill -9 at any moment the view goes on from its watermark; rows beyond it come again from the log and
replace themselves. Reads may see rows beyond the watermark, never miss one below it. One writer per version.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from msgspec import Struct

from domain.errors import Conflict, Unavailable
from domain.ids import PARTITIONS
from infra.adapters.chdb_engine import Analytics
from infra.adapters.row_views import (
    Catalog,
    Database,
    Rows,
    compare,
    is_live,
    live_version,
    nowhere_behind,
    place,
    places,
    replaced,
)
from projections.ports import Batch, Event, Fingerprint, Mark, Outcome

_MARKS = """
CREATE TABLE IF NOT EXISTS {name}_marks_{v} (partition UInt8, offset UInt64, position UInt64, events UInt64)
ENGINE = ReplacingMergeTree(offset) ORDER BY partition
"""


class MarkRow(Struct, array_like=True):
    """A row of a table of watermarks, columns in order. Stored format."""

    partition: int
    offset: int
    position: int
    events: int


class AnalyticsView(Protocol):
    """What one version of one view makes of events. An instance belongs to one sink. `looks_back`: `rows` looks at what is
    written."""

    name: str
    topic: str
    looks_back: bool

    def tables(self, version: int) -> Sequence[str]:
        """Names of the tables with its rows."""

    def schema(self, version: int) -> Sequence[str]:
        """Statements that create them where they are not."""

    def resume(self, analytics: Analytics, version: int, marks: Mapping[int, Mark]) -> None:
        """Takes what it needs to know of the past from the rows below `marks`."""

    def rows(self, analytics: Analytics, version: int, events: Sequence[Event]) -> Mapping[str, list[Any]]:
        """Rows by table for consecutive `events`. Raises `Poisoned`."""

    def written(self) -> None:
        """The rows last given are in, with their watermark."""

    def replayed(self, analytics: Analytics, version: int, event: Event) -> Mapping[str, list[Any]]:
        """Rows for an event that was parked. Raises `Poisoned`."""


def _marks(analytics: Analytics, name: str, version: int) -> dict[int, Mark]:
    sql = f"SELECT partition, offset, position, events FROM {name}_marks_{version} FINAL"
    return {row.partition: Mark(row.offset, row.position, row.events) for row in analytics.query(MarkRow, sql)}


def _ends(batch: Batch) -> dict[int, Mark]:
    return {span.partition: span.end for span in batch.spans}


class AnalyticsSink:
    """`projections.ports.Sink` of one version of one view. `live`: it is opened as the live one."""

    def __init__(self, analytics: Analytics, rows: Rows, view: AnalyticsView, version: int, *, live: bool) -> None:
        self._analytics, self._rows, self._view, self._version = analytics, rows, view, version
        self._lock = threading.Lock()
        self._was_live = live
        self._known: dict[int, Mark] | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def marks(self) -> Mapping[int, Mark]:
        """See `Sink`."""
        return _marks(self._analytics, self._view.name, self._version)

    def apply(self, batch: Batch) -> Outcome:
        """See `Sink`."""
        with self._lock:
            if self._writer is not None:
                self._run_ahead(self._writer, batch)
                return Outcome.APPLIED
            with self._alone([span.partition for span in batch.spans]):
                stored = dict(self.marks())
                outcome = compare(stored, batch)
                if outcome is Outcome.APPLIED:
                    self._resume(stored)
                    self._write(batch, self._made(batch))
                    self._view.written()
                    self._known = stored | _ends(batch)
                return outcome

    @contextmanager
    def running_ahead(self) -> Iterator[None]:
        """See `Sink`. A batch is written while the next one is made, where that does not look at what is written."""
        with ThreadPoolExecutor(1) as writer:
            self._writer, self._writing, self._known = writer, None, None
            try:
                yield
                self._caught_up()
            finally:
                self._writer, self._known = None, None

    def _run_ahead(self, writer: ThreadPoolExecutor, batch: Batch) -> None:
        if self._known is None or self._view.looks_back:
            self._caught_up()
            self._resume(dict(self.marks()))
        made = self._made(batch)
        self._view.written()
        self._known = {**(self._known or {}), **_ends(batch)}
        self._caught_up()
        self._writing = writer.submit(self._write_next, batch, made)

    def _caught_up(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write_next(self, batch: Batch, made: Mapping[str, list[Any]]) -> None:
        with self._alone([span.partition for span in batch.spans]):
            if compare(self.marks(), batch) is not Outcome.APPLIED:
                raise Conflict(
                    f"another process writes version {self._version} of {self._view.name}", code="version_fed"
                )
            self._write(batch, made)

    def _made(self, batch: Batch) -> Mapping[str, list[Any]]:
        return self._view.rows(self._analytics, self._version, [event for span in batch.spans for event in span.events])

    def _write(self, batch: Batch, made: Mapping[str, list[Any]]) -> None:
        """The watermark after the rows."""
        self._insert(made)
        ends = [MarkRow(p, end.offset, end.position, end.events) for p, end in _ends(batch).items()]
        self._analytics.insert(f"{self._view.name}_marks_{self._version}", ends)

    def replay(self, event: Event) -> None:
        """See `Sink`."""
        with self._lock, self._alone([event.partition]):
            self._resume(dict(self.marks()))
            self._insert(self._view.replayed(self._analytics, self._version, event))
            self._known = None

    @contextmanager
    def _alone(self, partitions: Iterable[int]) -> Iterator[None]:
        """Nobody else writes there, and no view comes or goes. A version that was live and is not is left alone: the rows
        would be missing in the one that is."""
        name, version = self._view.name, self._version
        with self._rows.beside([place(name, version, partition) for partition in partitions]) as db:
            live = is_live(db, name, version)
            if live is None or (self._was_live and not live):
                raise replaced(name, version)
            self._was_live = self._was_live or live
            yield

    def _resume(self, stored: dict[int, Mark]) -> None:
        if self._rows.shared or self._known != stored:
            self._view.resume(self._analytics, self._version, stored)
            self._known = stored

    def _insert(self, rows: Mapping[str, list[Any]]) -> None:
        for table, found in rows.items():
            self._analytics.insert(table, found)

    def fingerprint(self) -> Fingerprint:
        """See `Sink`. Nothing is applied meanwhile. Raises `Unavailable` if rows are beyond the watermark: ask again."""
        with self._lock, self._alone(range(PARTITIONS)):
            marks = dict(self.marks())
            digest = hashlib.sha256()
            for table in self._view.tables(self._version):
                self._nothing_beyond(table, marks)
                digest.update(self._digest(table).encode())
            return Fingerprint(marks, digest.hexdigest())

    def _digest(self, table: str) -> str:
        """The sum of the rows' SHA-256, modulo 2**256: order does not matter, every column does."""
        rows = f"SELECT SHA256(formatRow('RowBinary', *)) AS row FROM {table} FINAL"
        return self._analytics.value(f"SELECT count(), sum(reinterpretAsUInt256(row)) FROM ({rows})")

    def _nothing_beyond(self, table: str, marks: Mapping[int, Mark]) -> None:
        sql = f"SELECT partition, max(offset) + 1 AS offset, 0 AS position, 0 AS events FROM {table} GROUP BY partition"
        for row in self._analytics.query(MarkRow, sql):
            if row.offset > marks.get(row.partition, Mark()).offset:
                raise Unavailable(f"{table} is being written; ask again", code="view_behind")

    def close(self) -> None:
        """See `Sink`."""


class AnalyticsStore:
    """`projections.ports.Store` of one view. After a switch the old version stays until the next rebuild, for reads
    that are under way."""

    def __init__(self, analytics: Analytics, catalog: Catalog, view: "type[AnalyticsView]") -> None:
        self.name, self.topic = view.name, view.topic
        self._analytics, self._catalog, self._view = analytics, catalog, view
        self._beside: set[int] = set()

    def live(self) -> int:
        """See `Store`."""
        version = self._catalog.live(self.name)
        if version is not None:
            return version
        with self._catalog.file.arranging() as db:
            version = live_version(db, self.name)
            return self._add(db) if version is None else version

    def marks(self) -> Mapping[int, Mark]:
        """See `Store`."""
        return _marks(self._analytics, self.name, self.live())

    def create(self) -> int:
        """See `Store`. Versions left over go first."""
        with self._catalog.file.arranging() as db:
            idle = self._catalog.idle(self.name, db)
        for version in idle:
            self.drop(version)
        with self._catalog.file.arranging() as db:
            version = self._add(db)
        self._beside.add(version)
        return version

    def _add(self, db: Database) -> int:
        """A version is known once its tables are there."""
        version = self._catalog.add(self.name, db)
        self._drop_tables(version)
        self._create_tables(version)
        return version

    def open(self, version: int) -> AnalyticsSink:
        """See `Store`."""
        self._create_tables(version)
        live = version not in self._beside
        return AnalyticsSink(self._analytics, self._catalog.file, self._view(), version, live=live)

    def switch(self, version: int) -> None:
        """See `Store`."""
        old = self.live()
        with self._catalog.file.arranging() as db:
            if is_live(db, self.name, version) is None:
                raise replaced(self.name, version)
            if not is_live(db, self.name, version):
                nowhere_behind(
                    self.name, _marks(self._analytics, self.name, version), _marks(self._analytics, self.name, old)
                )
                self._catalog.switch(self.name, version, db)

    def drop(self, version: int) -> None:
        """See `Store`."""
        with self._catalog.file.arranging() as db:
            if live_version(db, self.name) == version:
                raise Conflict(f"version {version} of {self.name} is live", code="version_live")
            self._catalog.remove(self.name, version, db)
        self._drop_tables(version)

    def standing_still(self, version: int) -> AbstractContextManager[object]:
        """See `Store`."""
        return self._catalog.file.held(places(self.name, version))

    def _create_tables(self, version: int) -> None:
        for statement in (*self._view().schema(version), _MARKS.format(name=self.name, v=version)):
            self._analytics.command(statement)

    def _drop_tables(self, version: int) -> None:
        for table in (*self._view().tables(version), f"{self.name}_marks_{version}"):
            self._analytics.command(f"DROP TABLE IF EXISTS {table} SYNC")
