"""The tables of the PostgreSQL journal: an `eventsourcing` recorder that commits many commands, with their ledger, at once.

Every writer holds the library's lock of the events table from before its first position is drawn until its commit, in this
process and in all others: so commit order is position order, nothing commits below a position that was read, and what is
checked under the lock stays true. The library's database functions would drop that lock and are never used.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from eventsourcing.persistence import PersistenceError
from eventsourcing.postgres import ConnectionPool, PostgresApplicationRecorder, PostgresDatastore
from msgspec.structs import astuple, replace
from psycopg import Connection, Cursor
from psycopg.rows import DictRow, dict_row

from commands.ports import CommandRow, Stored
from infra.adapters.committed import Committed
from infra.adapters.group_commit import Append, Outcome
from infra.adapters.group_rules import Known
from infra.adapters.postgres import LOCK_SECONDS, Connections, transaction, undone
from infra.adapters.recorded_journal import COMMANDS, EVENTS

_SCHEMA = Path(__file__).with_name("postgres_journal.sql").read_bytes()
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('schema of the journal', 0))"

_LOCK = f"LOCK TABLE public.{EVENTS} IN EXCLUSIVE MODE".encode()  # as the library takes it

_KNOWN = f"""
SELECT
  ARRAY(
    SELECT coalesce((SELECT max(originator_version) FROM {EVENTS} WHERE originator_id = stream), 0)
    FROM unnest(%s::text[]) WITH ORDINALITY AS asked (stream, number) ORDER BY number
  ) AS versions,
  ARRAY(
    SELECT coalesce((SELECT TRUE FROM {COMMANDS} WHERE actor = asked.actor AND key = asked.key), FALSE)
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS asked (actor, key, number) ORDER BY number
  ) AS taken,
  ARRAY(SELECT nextval('{EVENTS}_notification_id_seq') FROM generate_series(1, %s)) AS positions,
  (SELECT coalesce(max(notification_id), 0) FROM {EVENTS}) AS last""".encode()

_INSERT_EVENTS = f"""
INSERT INTO {EVENTS} (originator_id, originator_version, topic, state, notification_id)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %b::bytea[], %s::bigint[])""".encode()

_ROW_TYPES = ("text", "text", "text", "bigint", "bigint", "bigint", "text", "bool", "bytea")
_ROW_ARRAYS = ", ".join(f"%s::{name}[]" for name in _ROW_TYPES)
_INSERT_ROWS = (
    f"INSERT INTO {COMMANDS} ({', '.join(CommandRow.__struct_fields__)}) SELECT * FROM unnest({_ROW_ARRAYS})".encode()
)

_AFTER = f"""
SELECT notification_id, state FROM {EVENTS} WHERE notification_id > %s ORDER BY notification_id LIMIT %s""".encode()
_EVENT = f"SELECT notification_id, state FROM {EVENTS} WHERE originator_id = %s AND originator_version = %s".encode()
_ROW = f"SELECT * FROM {COMMANDS} WHERE actor = %s AND key = %s".encode()
_ERASE = f"UPDATE {COMMANDS} SET body = NULL WHERE sealed AND body IS NOT NULL AND at <= %s".encode()


class InDoubt(PersistenceError):
    """The connection was lost while a commit was acknowledged: it is done or will never be."""


class _Pool(ConnectionPool[Connection[DictRow]]):
    """The library's pool, over `Connections`."""

    def __init__(self, url: str) -> None:
        super().__init__(open=False)
        self._connections: Connections[DictRow] = Connections(url, dict_row)

    def open(self, wait: bool = False, timeout: float = 0) -> None:
        """Nothing: connections are made when they are needed."""

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Connection[DictRow]]:
        """One connection, in autocommit mode."""
        del timeout
        with self._connections.borrowed() as connection:
            yield connection

    def close(self, timeout: float = 0) -> None:
        """Closes all connections."""
        del timeout
        self._connections.close()


class _Datastore(PostgresDatastore):
    def __init__(self, url: str) -> None:
        super().__init__("", "", "", "", "", originator_id_type="text", lock_timeout=LOCK_SECONDS)
        self.pool = _Pool(url)

    def register_type_adapters(self) -> None:
        """None: events are inserted as arrays of plain columns."""


class PostgresRecorder(PostgresApplicationRecorder):
    """Of `infra.adapters.recorded_journal.Recorder` everything but `commits`: that is `PostgresCommitter`."""

    def __init__(self, url: str) -> None:
        super().__init__(_Datastore(url), events_table_name=EVENTS)
        self._committed = Committed()

    def create_table(self) -> None:
        """See `Recorder`. Processes that start at the same time take turns."""
        with self.datastore.get_connection() as connection, transaction(connection):
            connection.execute(_ALONE)
            connection.execute(_SCHEMA)

    def commit_all(self, appends: Sequence[Append]) -> list[Outcome]:
        """Appends what can be, in the order given, in one transaction. One that is refused does not hold up the others.

        Two round trips: what there is, under the lock; then all that changes. Raises `InDoubt`, else `PersistenceError`:
        nothing was appended then.
        """
        with self.datastore.get_connection() as connection, undone(connection):
            streams, keys, asked = _asked(appends)
            with connection.pipeline():
                connection.execute(b"BEGIN")
                connection.execute(_LOCK)
                known = connection.execute(_KNOWN, asked)
            found = _known(known, streams, keys)
            last = found.last
            outcomes, events, rows = found.let_in(appends)
            try:
                with connection.pipeline():
                    _insert(connection, _INSERT_EVENTS, events)
                    _insert(connection, _INSERT_ROWS, [astuple(row) for row in rows])
                    connection.execute("COMMIT")
            except psycopg.OperationalError as error:
                raise InDoubt(str(error)) from error
            self._committed.add(last, [Stored(at, body) for _, _, _, body, at in events])
            return outcomes

    def after(self, position: int, limit: int) -> Sequence[Stored]:
        """See `Feed`."""
        if found := self._committed.after(position, limit):
            return found
        with self.datastore.get_connection() as connection:
            cursor = connection.execute(_AFTER, (position, limit), binary=True)
            return [Stored(row["notification_id"], bytes(row["state"])) for row in cursor]

    def find_all(self, appends: Sequence[Append]) -> list[int | None]:
        """The positions of commands that were tried before, with `InDoubt`. None: it is not in, and will never be, since
        whoever tried held the lock up to the end, and we had it afterwards. Raises `PersistenceError`."""
        with self.datastore.get_connection() as connection, transaction(connection):
            cursor = connection.cursor()
            cursor.execute(_LOCK)
            return [_position(cursor, append) for append in appends]

    def command(self, actor: str, key: str) -> CommandRow | None:
        """See `Recorder`."""
        with self.datastore.get_connection() as connection:
            return _row(connection.cursor(), actor, key)

    def erase_sealed(self, before: int) -> None:
        """See `Recorder`."""
        with self.datastore.get_connection() as connection:
            connection.execute(_ERASE, (before,))

    def close(self) -> None:
        """See `Recorder`."""
        self.datastore.close()


def _asked(appends: Sequence[Append]) -> tuple[list[str], list[tuple[str, str]], tuple[Any, ...]]:
    """The streams and ledger keys of a group, and the parameters of `_KNOWN`."""
    streams = {stream for append in appends for stream in append.expected}
    streams.update(str(event.originator_id) for append in appends for event in append.events)
    keys = [(append.row.actor, append.row.key) for append in appends if append.row is not None]
    events = sum(len(append.events) for append in appends)
    names = list(streams)
    return names, keys, (names, [actor for actor, _ in keys], [key for _, key in keys], events)


def _known(answer: Cursor[DictRow], streams: Sequence[str], keys: Sequence[tuple[str, str]]) -> Known:
    (row,) = answer
    taken = {key for key, used in zip(keys, row["taken"], strict=True) if used}
    return Known(dict(zip(streams, row["versions"], strict=True)), taken, sorted(row["positions"]), row["last"])


def _insert(connection: Connection[DictRow], statement: bytes, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        connection.execute(statement, tuple(map(list, zip(*rows, strict=True))))


def _row(cursor: Cursor[DictRow], actor: str, key: str) -> CommandRow | None:
    found = cursor.execute(_ROW, (actor, key)).fetchone()
    return None if found is None else CommandRow(**found)


def _position(cursor: Cursor[DictRow], append: Append) -> int | None:
    """The position of a command that is in, by its last event's own bytes, or by its ledger row where it has no event."""
    if append.events:
        last = append.events[-1]
        found = cursor.execute(_EVENT, (last.originator_id, last.originator_version)).fetchone()
        return found["notification_id"] if found is not None and bytes(found["state"]) == last.state else None
    if append.row is None:
        return None
    row = _row(cursor, append.row.actor, append.row.key)
    return row.position if row is not None and replace(row, position=append.row.position) == append.row else None
