"""The tables of the SQLite journal: an `eventsourcing` recorder that commits many commands, with their ledger,
at once.

Positions are declared primary keys, so nothing (not even VACUUM) renumbers them. SQLite has one writer at a time, hence
commit order is position order and nothing commits below a position that was read.
"""

from collections.abc import Sequence
from typing import Any

from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
)
from msgspec.structs import astuple

from commands.ports import CommandRow, Stored
from infra.adapters.committed import Committed
from infra.adapters.group_commit import Append, GroupCommit, Outcome
from infra.adapters.group_rules import Known
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

_VERSION = f"SELECT MAX(originator_version) FROM {EVENTS} WHERE originator_id = ?"
_AFTER = f"SELECT rowid, state FROM {EVENTS} WHERE rowid > ? ORDER BY rowid LIMIT ?"
_TAKEN = f"SELECT 1 FROM {COMMANDS} WHERE actor = ? AND key = ?"
_INSERT_EVENT = f"INSERT INTO {EVENTS} (originator_id, originator_version, topic, state, rowid) VALUES (?,?,?,?,?)"
_INSERT_ROW = (
    f"INSERT INTO {COMMANDS} ({', '.join(CommandRow.__struct_fields__)}) "
    f"VALUES ({','.join('?' * len(CommandRow.__struct_fields__))})"
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
        self.commits = GroupCommit(self.commit_all)
        self._committed = Committed()

    def construct_create_table_statements(self) -> list[str]:
        return list(_TABLES)

    def commit_all(self, appends: Sequence[Append]) -> list[Outcome]:
        """Appends what can be, in the order given, in one transaction. One that is refused does not hold up the others."""
        with self.datastore.transaction(commit=True) as c:
            c.execute(f"DELETE FROM {EVENTS} WHERE 0")  # takes the write lock, so that what is read below stays true
            known = self._known(c, appends)
            last = known.last
            outcomes, events, rows = known.let_in(appends)
            c.executemany(_INSERT_EVENT, events)
            c.executemany(_INSERT_ROW, [astuple(row) for row in rows])
        self._committed.add(last, [Stored(at, body) for _, _, _, body, at in events])
        return outcomes

    def after(self, position: int, limit: int) -> Sequence[Stored]:
        """See `Feed`."""
        if found := self._committed.after(position, limit):
            return found
        with self.datastore.transaction(commit=False) as c:
            c.execute(_AFTER, (position, limit))
            return [Stored(*row) for row in c.fetchall()]

    def _known(self, c: SQLiteCursor, appends: Sequence[Append]) -> Known:
        streams = {stream for append in appends for stream in append.expected}
        streams.update(str(event.originator_id) for append in appends for event in append.events)
        keys = {(append.row.actor, append.row.key) for append in appends if append.row is not None}
        end = self._max_notification_id(c) or 0
        return Known(
            {stream: _one(c, _VERSION, (stream,)) or 0 for stream in streams},
            {key for key in keys if _one(c, _TAKEN, key) is not None},
            range(end + 1, end + 1 + sum(len(append.events) for append in appends)),
            end,
        )

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
        """See `Recorder`. What waits is carried out first."""
        self.commits.close()
        self.datastore.close()


def _command(row: Any) -> CommandRow:
    values: dict[str, Any] = {**dict(row), "sealed": bool(row["sealed"])}
    return CommandRow(**values)


def _one(c: SQLiteCursor, statement: str, parameters: tuple[str, ...]) -> Any:
    c.execute(statement, parameters)
    found = c.fetchone()
    return None if found is None else found[0]
