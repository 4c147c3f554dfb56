"""The tables of the SQLite journal: an `eventsourcing` recorder that writes the command ledger in the same transaction.

Positions are declared primary keys, so nothing (not even VACUUM) renumbers them. SQLite has one writer at a time, hence
commit order is position order and nothing commits below a position that was read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
)

from commands.ports import CommandRow
from domain.errors import Conflict, VersionConflict
from infra.adapters.recorded_journal import COMMANDS, EVENTS

_TABLES = (
    f"""CREATE TABLE IF NOT EXISTS {EVENTS} (
    rowid INTEGER PRIMARY KEY AUTOINCREMENT,
    originator_id TEXT NOT NULL,
    originator_version INTEGER NOT NULL,
    topic TEXT NOT NULL,
    state BLOB NOT NULL,
    UNIQUE (originator_id, originator_version))""",
    f"""CREATE TABLE IF NOT EXISTS {COMMANDS} (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    position INTEGER NOT NULL,
    etag TEXT,
    sealed INTEGER NOT NULL,
    body BLOB,
    PRIMARY KEY (actor, key)) WITHOUT ROWID""",
    f"CREATE INDEX IF NOT EXISTS {COMMANDS}_sealed ON {COMMANDS} (at) WHERE sealed AND body IS NOT NULL",
)


class _Pool(SQLiteConnectionPool):
    synchronous = "FULL"

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous={self.synchronous}")
        cursor.execute("PRAGMA secure_delete=ON")
        return connection


def open_recorder(path: str, synchronous: str) -> "LedgerRecorder":
    """The recorder of the file at `path`; the file is made by `create_table`. `synchronous` is ``FULL`` or ``NORMAL``."""
    datastore = SQLiteDatastore(path, lock_timeout=10, pool_timeout=30.0, originator_id_type="text")
    datastore.pool = _Pool(db_name=path, lock_timeout=10, pool_size=4, max_overflow=28, pool_timeout=30.0)
    datastore.pool.synchronous = synchronous
    return LedgerRecorder(datastore)


class LedgerRecorder(SQLiteApplicationRecorder):
    """See `infra.adapters.recorded_journal.Recorder`."""

    def __init__(self, datastore: SQLiteDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS)
        columns = "originator_id, originator_version, topic, state"
        self.insert_events_statement = f"INSERT INTO {EVENTS} ({columns}) VALUES (?,?,?,?)"

    def construct_create_table_statements(self) -> list[str]:
        return list(_TABLES)

    def commit(self, events: Sequence[StoredEvent], expected: Mapping[str, int], row: CommandRow | None) -> int:
        """See `Recorder`."""
        with self.datastore.transaction(commit=True) as c:
            if row is not None:
                _claim(c, row)
            positions = self._insert_expected(c, events, expected)
            position = positions[-1] if positions else self._max_notification_id(c) or 0
            if row is not None:
                c.execute(
                    f"UPDATE {COMMANDS} SET position = ? WHERE actor = ? AND key = ?", (position, row.actor, row.key)
                )
            return position

    def _insert_expected(
        self, c: SQLiteCursor, events: Sequence[StoredEvent], expected: Mapping[str, int]
    ) -> Sequence[int]:
        if events or expected:
            c.execute(f"DELETE FROM {EVENTS} WHERE 0")  # takes the write lock, so that what is read below stays true
        for stream, version in expected.items():
            c.execute(f"SELECT MAX(originator_version) AS version FROM {EVENTS} WHERE originator_id = ?", (stream,))
            at = c.fetchone()["version"] or 0
            if at != version:
                raise VersionConflict(f"{stream} is at version {at}, not {version}")
        return self._insert_events(c, events) or ()

    def command(self, actor: str, key: str) -> CommandRow | None:
        """See `Recorder`."""
        with self.datastore.transaction(commit=False) as c:
            c.execute(f"SELECT * FROM {COMMANDS} WHERE actor = ? AND key = ?", (actor, key))
            found = c.fetchone()
        return None if found is None else _command(found)

    def commands(self) -> list[CommandRow]:
        """The whole ledger."""
        with self.datastore.transaction(commit=False) as c:
            c.execute(f"SELECT * FROM {COMMANDS} ORDER BY actor, key")
            return [_command(row) for row in c.fetchall()]

    def erase_sealed(self, before: int) -> None:
        """See `Recorder`."""
        with self.datastore.transaction(commit=True) as c:
            c.execute(f"UPDATE {COMMANDS} SET body = NULL WHERE sealed AND body IS NOT NULL AND at <= ?", (before,))

    def close(self) -> None:
        """See `Recorder`."""
        self.datastore.close()


def _command(row: Any) -> CommandRow:
    values: dict[str, Any] = {**dict(row), "sealed": bool(row["sealed"])}
    return CommandRow(**values)


def _claim(c: SQLiteCursor, row: CommandRow) -> None:
    names = row.__struct_fields__
    c.execute(
        f"INSERT INTO {COMMANDS} ({', '.join(names)}) VALUES ({','.join('?' * len(names))}) "
        "ON CONFLICT DO NOTHING RETURNING 1",
        [getattr(row, name) for name in names],
    )
    if c.fetchone() is None:
        raise Conflict("this Idempotency-Key was used", code="command_id_taken")
