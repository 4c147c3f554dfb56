"""Row views in a relational store: rows and watermark of a view change in one transaction, versions lie side by side.

The SQL of all views is written once, in what SQLite and PostgreSQL share: ``?`` for values, ``json_each(?)`` over a JSON array
of arrays, truth as 0 and 1, ``INTEGER``, ``TEXT`` (ordered by code points) and ``BLOB`` columns. A `Rows` store runs it.
Equal rows have equal fingerprints in every store.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import msgspec

from domain.errors import Conflict, Unavailable
from domain.ids import PARTITIONS
from projections.ports import Batch, Event, Fingerprint, Mark, Outcome, Span

SCHEMA = Path(__file__).with_suffix(".sql").read_text()
"""The tables that all views share."""

HASH_ROWS = 10_000
"""Rows hashed at a time. Part of what a fingerprint is."""

_LIVE = "SELECT version FROM catalog WHERE name = ? AND live = 1"
_LIVE_MARKS = f'SELECT partition, "offset", position, events FROM marks WHERE name = ? AND version = ({_LIVE})'

_VERSION_MARKS = (
    'SELECT partition, "offset", position, events FROM catalog LEFT JOIN marks USING (name, version)'
    " WHERE name = ? AND version = ?"
)

_pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode


class Found(Protocol):
    """The answer of a statement."""

    def __iter__(self) -> Iterator[Any]: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    @property
    def rowcount(self) -> int: ...


class Database(Protocol):
    """One connection, inside a transaction."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Found:
        """Runs one statement."""

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        """Runs one statement for each of the rows, which have different keys."""


class Rows(Protocol):
    """A store of row views. Everything raises `Unavailable` when it does not answer; nothing of the transaction is kept then.

    `shared`: other processes may write too, so that nothing a sink remembers is sure.
    """

    shared: bool

    def query(self, sql: str, parameters: Sequence[Any], /) -> list[tuple[Any, ...]]:
        """The rows of one query, as of one moment."""

    def reading(self) -> AbstractContextManager[Database]:
        """One snapshot of everything."""

    def writing(self) -> AbstractContextManager[Database]:
        """One transaction."""

    def applying(self, places: Iterable[str]) -> AbstractContextManager[Database]:
        """One transaction, alone at `places`. No view comes or goes meanwhile."""

    def beside(self, places: Iterable[str]) -> AbstractContextManager[Database]:
        """As `applying`, for a view whose rows are in another store: writers of this one need not wait."""

    def held(self, places: Iterable[str]) -> AbstractContextManager[object]:
        """No other process applies anything at `places` meanwhile; views may come and go."""

    def arranging(self) -> AbstractContextManager[Database]:
        """One transaction in which views come and go: every other one is wholly before or after it."""

    def chunks(self, db: Database, sql: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query, `size` at a time, without holding more."""

    def close(self) -> None:
        """Gives up the connections, each when it is no longer used."""


def live_version(db: Database, name: str) -> int | None:
    """The live version of a view, None before its first."""
    row = db.execute(_LIVE, (name,)).fetchone()
    return None if row is None else row[0]


def is_live(db: Database, name: str, version: int) -> bool | None:
    """None: there is no such version, any more."""
    row = db.execute("SELECT live FROM catalog WHERE name = ? AND version = ?", (name, version)).fetchone()
    return None if row is None else bool(row[0])


def place(name: str, version: int, partition: int) -> str:
    """Where one batch is applied at a time."""
    return f"{name}/{version}/{partition}"


def places(name: str, version: int) -> list[str]:
    """All of them, of one version of a view."""
    return [place(name, version, partition) for partition in range(PARTITIONS)]


def marks_of(db: Database, name: str, version: int) -> dict[int, Mark]:
    """The watermark of one version."""
    found = db.execute(
        'SELECT partition, "offset", position, events FROM marks WHERE name = ? AND version = ?', (name, version)
    )
    return {partition: Mark(offset, position, events) for partition, offset, position, events in found}


def replaced(name: str, version: int) -> Unavailable:
    """What a sink raises that was opened on the live version, which is not the live one any more: open it again."""
    return Unavailable(f"version {version} of {name} is not the live one any more", code="version_replaced")


class RowView(Protocol):
    """What one view does with its tables. `version` is part of their names."""

    name: str
    topic: str

    def tables(self, version: int) -> Sequence[str]:
        """Their names."""

    def schema(self, version: int) -> str:
        """SQL that creates them."""

    def apply(self, db: Database, version: int, span: Span, held_back: frozenset[str]) -> None:
        """Takes in the events of `span`. Raises `Poisoned`."""

    def replay(self, db: Database, version: int, event: Event) -> None:
        """Takes in an event that was parked. Raises `Poisoned`."""

    def rows(self, version: int) -> Sequence[str]:
        """Queries for everything that the log determines, each sorted by key."""


class RowSink:
    """`projections.ports.Sink` of one version of one view."""

    def __init__(self, store: Rows, view: RowView, version: int) -> None:
        self._store, self._view, self._version = store, view, version

    def marks(self) -> Mapping[int, Mark]:
        """See `Sink`."""
        with self._store.reading() as db:
            return self._marks(db)

    def apply(self, batch: Batch) -> Outcome:
        """See `Sink`."""
        with self._store.applying([self._place(span.partition) for span in batch.spans]) as db:
            outcome = compare(self._marks(db), batch)
            if outcome is Outcome.APPLIED:
                for span in batch.spans:
                    if span.events:
                        self._view.apply(db, self._version, span, batch.held_back)
                self._advance(db, batch)
            return outcome

    def _advance(self, db: Database, batch: Batch) -> None:
        name, version = self._view.name, self._version
        db.executemany(
            upsert("marks", _MARK, key=("name", "version", "partition")),
            [(name, version, s.partition, s.end.offset, s.end.position, s.end.events) for s in batch.spans],
        )

    def running_ahead(self) -> AbstractContextManager[object]:
        """See `Sink`. A batch is folded into what the one before it left, so it waits for that."""
        return nullcontext()

    def replay(self, event: Event) -> None:
        """See `Sink`."""
        with self._store.applying([self._place(event.partition)]) as db:
            self._marks(db)
            self._view.replay(db, self._version, event)

    def fingerprint(self) -> Fingerprint:
        """See `Sink`. Takes a snapshot: the view goes on meanwhile."""
        digest = hashlib.sha256()
        with self._store.reading() as db:
            marks = self._marks(db)
            for sql in self._view.rows(self._version):
                for rows in self._store.chunks(db, sql, HASH_ROWS):
                    digest.update(_pack(rows))
                digest.update(b"\0")
        return Fingerprint(marks, digest.hexdigest())

    def close(self) -> None:
        """See `Sink`."""

    def _place(self, partition: int) -> str:
        return place(self._view.name, self._version, partition)

    def _marks(self, db: Database) -> dict[int, Mark]:
        """The watermark; raises `Unavailable` if the version is gone: the old one goes in the transaction that switches."""
        found = db.execute(_VERSION_MARKS, (self._view.name, self._version)).fetchall()
        if not found:
            raise replaced(self._view.name, self._version)
        return {partition: Mark(*place) for partition, *place in found if partition is not None}


_MARK = ("name", "version", "partition", "offset", "position", "events")


def compare(stored: Mapping[int, Mark], batch: Batch) -> Outcome:
    """What a sink at `stored` is to do with `batch`."""
    at = {span.partition: stored.get(span.partition, Mark()).offset for span in batch.spans}
    if all(at[span.partition] == span.start.offset for span in batch.spans):
        return Outcome.APPLIED
    if all(at[span.partition] >= span.end.offset for span in batch.spans):
        return Outcome.ALREADY
    return Outcome.STALE


class Catalog:
    """Which versions of which views there are, for views in this store and elsewhere."""

    def __init__(self, file: Rows) -> None:
        self.file = file

    def live(self, name: str) -> int | None:
        """The live version, None before the first."""
        found = self.file.query(_LIVE, (name,))
        return found[0][0] if found else None

    def marks(self, name: str) -> Mapping[int, Mark]:
        """The watermark of the live version of a view in this store."""
        found = self.file.query(_LIVE_MARKS, (name, name))
        return {partition: Mark(offset, position, events) for partition, offset, position, events in found}

    def add(self, name: str, db: Database) -> int:
        """The number of a new version; the first is live at once."""
        last = db.execute("SELECT max(version) FROM catalog WHERE name = ?", (name,)).fetchone()[0]
        version = int(last or 0) + 1
        db.execute("INSERT INTO catalog VALUES (?, ?, ?)", (name, version, int(last is None)))
        return version

    def idle(self, name: str, db: Database) -> list[int]:
        """Versions that are not live."""
        found = db.execute("SELECT version FROM catalog WHERE name = ? AND live = 0 ORDER BY version", (name,))
        return [row[0] for row in found]

    def switch(self, name: str, version: int, db: Database) -> None:
        db.execute("UPDATE catalog SET live = CASE WHEN version = ? THEN 1 ELSE 0 END WHERE name = ?", (version, name))

    def remove(self, name: str, version: int, db: Database) -> None:
        db.execute("DELETE FROM catalog WHERE name = ? AND version = ? AND live = 0", (name, version))


class RowStore:
    """`projections.ports.Store` of one view."""

    def __init__(self, catalog: Catalog, view: RowView) -> None:
        self.name, self.topic = view.name, view.topic
        self._catalog, self._view = catalog, view

    def live(self) -> int:
        """See `Store`. Processes that make the first version at the same time agree on it."""
        version = self._catalog.live(self.name)
        if version is not None:
            return version
        with self._catalog.file.arranging() as db:
            version = live_version(db, self.name)
            return self._create(db) if version is None else version

    def marks(self) -> Mapping[int, Mark]:
        """See `Store`."""
        return self._catalog.marks(self.name)

    def create(self) -> int:
        """See `Store`. Versions left over from a rebuild that did not end go first."""
        with self._catalog.file.arranging() as db:
            return self._create(db)

    def _create(self, db: Database) -> int:
        for idle in self._catalog.idle(self.name, db):
            self._drop(db, idle)
        version = self._catalog.add(self.name, db)
        for statement in self._view.schema(version).split(";"):
            db.execute(statement)
        return version

    def open(self, version: int) -> RowSink:
        """See `Store`."""
        return RowSink(self._catalog.file, self._view, version)

    def switch(self, version: int) -> None:
        """See `Store`."""
        with self._catalog.file.arranging() as db:
            old = live_version(db, self.name)
            if old is None or old == version:
                return
            nowhere_behind(self.name, marks_of(db, self.name, version), marks_of(db, self.name, old))
            self._catalog.switch(self.name, version, db)
            self._drop(db, old)

    def drop(self, version: int) -> None:
        """See `Store`."""
        with self._catalog.file.arranging() as db:
            self._drop(db, version)

    def standing_still(self, version: int) -> AbstractContextManager[object]:
        """See `Store`."""
        return self._catalog.file.held(places(self.name, version))

    def _drop(self, db: Database, version: int) -> None:
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


def listed(values: Iterable[str]) -> str:
    """`values` as JSON for `json_each`, where each is ``value ->> 0``."""
    return tabled((value,) for value in values)


def tabled(rows: Iterable[Sequence[str]]) -> str:
    """`rows` as JSON for `json_each`, where the fields are ``value ->> 0``, ``value ->> 1`` and so on."""
    return _json(list(rows)).decode()


def upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    """A statement that inserts a row of `columns`, or overwrites the one that has its key."""
    changed = ", ".join(f'"{column}" = excluded."{column}"' for column in columns if column not in key)
    return (
        f"INSERT INTO {table} ({_names(columns)}) VALUES ({', '.join('?' * len(columns))})"
        f" ON CONFLICT ({_names(key)}) DO UPDATE SET {changed}"
    )


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def scalar(db: Database, sql: str, *params: Any) -> Any:
    """The one value of the one row of a query."""
    return db.execute(sql, params).fetchone()[0]
