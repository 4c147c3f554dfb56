"""Row views in one SQLite file: rows and watermark of a view change in one transaction, versions lie side by side.

Guarantees: a reader sees a view at one watermark, also while it is switched to another version, also from another
process (WAL). After kill -9 rows and watermark agree; after a power loss the last transactions may be missing, together
with their watermark, and come again from the log.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from domain.errors import Conflict, Unavailable
from projections.ports import Batch, Event, Fingerprint, Mark, Outcome, Span

_SCHEMA = Path(__file__).with_suffix(".sql").read_text()
_BUSY_SECONDS = 30.0
_HASH_ROWS = 10_000

_pack = msgspec.msgpack.Encoder().encode


class ViewsFile:
    """The file. Writers take a connection of their own, readers borrow one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        with answering():
            connection = self.connect()
            connection.executescript(_SCHEMA)
        self._idle.append(connection)

    def connect(self) -> sqlite3.Connection:
        """A new connection, to be used by one thread at a time and closed by the caller."""
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -32768")
        return connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot of everything in the file. Raises `Unavailable`."""
        with answering():
            connection = self._borrow()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.rollback()
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)

    def _borrow(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self.connect()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises `Unavailable`."""
        with answering():
            connection = self.connect()
            try:
                with transaction(connection):
                    yield connection
            finally:
                connection.close()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


@contextmanager
def answering() -> Iterator[None]:
    """Turns what SQLite raises into `Unavailable`."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"views file: {error}", code="views_unavailable") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits at the end, rolls back on any exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def live_version(db: sqlite3.Connection, name: str) -> int | None:
    """The live version of a view, None before its first."""
    row = db.execute("SELECT version FROM catalog WHERE name = ? AND live", (name,)).fetchone()
    return None if row is None else row[0]


def marks_of(db: sqlite3.Connection, name: str, version: int) -> dict[int, Mark]:
    """The watermark of one version."""
    found = db.execute(
        'SELECT partition, "offset", position, events FROM marks WHERE name = ? AND version = ?', (name, version)
    )
    return {partition: Mark(offset, position, events) for partition, offset, position, events in found}


class RowView(Protocol):
    """What one view does with its tables. `version` is part of their names."""

    name: str
    topic: str

    def tables(self, version: int) -> Sequence[str]:
        """Their names."""

    def schema(self, version: int) -> str:
        """SQL that creates them."""

    def apply(self, db: sqlite3.Connection, version: int, span: Span, held_back: frozenset[str]) -> None:
        """Takes in the events of `span`. Raises `Poisoned`."""

    def replay(self, db: sqlite3.Connection, version: int, event: Event) -> None:
        """Takes in an event that was parked. Raises `Poisoned`."""

    def rows(self, db: sqlite3.Connection, version: int) -> Iterable[sqlite3.Cursor]:
        """Everything that the log determines, each cursor sorted by key."""


class SqliteSink:
    """`projections.ports.Sink` of one version of one view."""

    def __init__(self, file: ViewsFile, view: RowView, version: int) -> None:
        self._file, self._view, self._version = file, view, version
        self._lock = threading.Lock()
        with answering():
            self._db = file.connect()

    def marks(self) -> Mapping[int, Mark]:
        """See `Sink`."""
        with self._lock, answering():
            return marks_of(self._db, self._view.name, self._version)

    def apply(self, batch: Batch) -> Outcome:
        """See `Sink`."""
        with self._lock, answering(), transaction(self._db):
            outcome = compare(marks_of(self._db, self._view.name, self._version), batch)
            if outcome is Outcome.APPLIED:
                for span in batch.spans:
                    if span.events:
                        self._view.apply(self._db, self._version, span, batch.held_back)
                self._advance(batch)
            return outcome

    def _advance(self, batch: Batch) -> None:
        name, version = self._view.name, self._version
        self._db.executemany(
            "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?)",
            [(name, version, s.partition, s.end.offset, s.end.position, s.end.events) for s in batch.spans],
        )

    def replay(self, event: Event) -> None:
        """See `Sink`."""
        with self._lock, answering(), transaction(self._db):
            self._view.replay(self._db, self._version, event)

    def fingerprint(self) -> Fingerprint:
        """See `Sink`. Takes a snapshot: the view goes on meanwhile."""
        digest = hashlib.sha256()
        with self._file.reading() as db:
            marks = marks_of(db, self._view.name, self._version)
            for cursor in self._view.rows(db, self._version):
                while rows := cursor.fetchmany(_HASH_ROWS):
                    digest.update(_pack(rows))
                digest.update(b"\0")
        return Fingerprint(marks, digest.hexdigest())

    def close(self) -> None:
        """See `Sink`."""
        with self._lock:
            self._db.close()


def compare(stored: Mapping[int, Mark], batch: Batch) -> Outcome:
    """What a sink at `stored` is to do with `batch`."""
    at = {span.partition: stored.get(span.partition, Mark()).offset for span in batch.spans}
    if all(at[span.partition] == span.start.offset for span in batch.spans):
        return Outcome.APPLIED
    if all(at[span.partition] >= span.end.offset for span in batch.spans):
        return Outcome.ALREADY
    return Outcome.STALE


class Catalog:
    """Which versions of which views there are, for views in this file and elsewhere."""

    def __init__(self, file: ViewsFile) -> None:
        self.file = file

    def live(self, name: str) -> int | None:
        """The live version, None before the first."""
        with self.file.reading() as db:
            return live_version(db, name)

    def add(self, name: str, db: sqlite3.Connection) -> int:
        """The number of a new version; the first is live at once."""
        last = db.execute("SELECT max(version) FROM catalog WHERE name = ?", (name,)).fetchone()[0]
        version = int(last or 0) + 1
        db.execute("INSERT INTO catalog VALUES (?, ?, ?)", (name, version, last is None))
        return version

    def idle(self, name: str, db: sqlite3.Connection) -> list[int]:
        """Versions that are not live."""
        found = db.execute("SELECT version FROM catalog WHERE name = ? AND NOT live ORDER BY version", (name,))
        return [row[0] for row in found]

    def switch(self, name: str, version: int, db: sqlite3.Connection) -> None:
        db.execute("UPDATE catalog SET live = (version = ?) WHERE name = ?", (version, name))

    def remove(self, name: str, version: int, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM catalog WHERE name = ? AND version = ? AND NOT live", (name, version))


class SqliteStore:
    """`projections.ports.Store` of one view in the file."""

    def __init__(self, catalog: Catalog, view: RowView) -> None:
        self.name, self.topic = view.name, view.topic
        self._catalog, self._view = catalog, view

    def live(self) -> int:
        """See `Store`."""
        version = self._catalog.live(self.name)
        return self.create() if version is None else version

    def create(self) -> int:
        """See `Store`. Versions left over from a rebuild that did not end go first."""
        with self._catalog.file.writing() as db:
            for idle in self._catalog.idle(self.name, db):
                self._drop(db, idle)
            version = self._catalog.add(self.name, db)
            for statement in self._view.schema(version).split(";"):
                db.execute(statement)
        return version

    def open(self, version: int) -> SqliteSink:
        """See `Store`."""
        return SqliteSink(self._catalog.file, self._view, version)

    def switch(self, version: int) -> None:
        """See `Store`."""
        with self._catalog.file.writing() as db:
            old = live_version(db, self.name)
            if old is None or old == version:
                return
            nowhere_behind(self.name, marks_of(db, self.name, version), marks_of(db, self.name, old))
            self._catalog.switch(self.name, version, db)
            self._drop(db, old)

    def drop(self, version: int) -> None:
        """See `Store`."""
        with self._catalog.file.writing() as db:
            self._drop(db, version)

    def _drop(self, db: sqlite3.Connection, version: int) -> None:
        if live_version(db, self.name) == version:
            raise Conflict(f"version {version} of {self.name} is live", code="version_live")
        for table in self._view.tables(version):
            db.execute(f"DROP TABLE IF EXISTS {table}")
        db.execute("DELETE FROM marks WHERE name = ? AND version = ?", (self.name, version))
        self._catalog.remove(self.name, version, db)


def nowhere_behind(name: str, new: Mapping[int, Mark], old: Mapping[int, Mark]) -> None:
    """Raises `Conflict` (``version_behind``) if `new` is behind `old` in any partition."""
    behind = [p for p, mark in old.items() if new.get(p, Mark()).offset < mark.offset]
    if behind:
        raise Conflict(
            f"the new version of {name} is behind the live one in partitions {behind}", code="version_behind"
        )


def quoted(values: Iterable[str]) -> str:
    """A JSON array of `values`, for `json_each`."""
    return msgspec.json.encode(list(values)).decode()


def scalar(db: sqlite3.Connection, sql: str, *params: Any) -> Any:
    """The one value of the one row of a query."""
    return db.execute(sql, params).fetchone()[0]
