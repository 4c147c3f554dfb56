"""The tables of the PostgreSQL journal: an `eventsourcing` recorder that commits many commands, with their ledger, at once.

Every writer holds the library's lock of the events table from before its first position is drawn until its commit, in this
process and in all others: so commit order is position order, nothing commits below a position that was read, and what is
checked under the lock stays true. The library's database functions would drop that lock and are never used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from msgspec import Struct
from psycopg import Connection, Cursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL

from domain.errors import Conflict, VersionConflict
from infra.adapters.postgres import Connections, transaction
from infra.adapters.recorded_journal import EVENTS, CommandRow

_SCHEMA = Path(__file__).with_name("postgres_journal.sql").read_text()

_STATE = """
SELECT stream, coalesce((SELECT max(originator_version) FROM events WHERE originator_id = stream), 0) AS version
FROM unnest(%s::text[]) AS stream"""

_TAKEN = "SELECT actor, key FROM commands WHERE (actor, key) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"

_EVENTS = """
INSERT INTO events (originator_id, originator_version, topic, state)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
RETURNING notification_id"""

_COMMANDS = """
INSERT INTO commands (actor, key, fingerprint, at, status, position, etag, sealed, body)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::bool[],
    %s::bytea[])"""

_END = "SELECT coalesce(max(notification_id), 0) AS position FROM events"

Outcome = int | Conflict
"""What became of one command: its position, or why it was refused."""


class Append(Struct, frozen=True):
    """One command, as `Journal.append` takes it."""

    events: Sequence[StoredEvent]
    expected: Mapping[str, int]
    row: CommandRow | None


class _Datastore(PostgresDatastore):
    """The library's datastore over `Connections`, whose reads and writes are the recorder's only."""

    def __init__(self, url: str) -> None:
        named: dict[str, Any] = {"dbname": "", "host": "", "port": "", "user": "", "password": ""}
        named.update({name: value for name, value in conninfo_to_dict(url).items() if name in named})
        super().__init__(**named, originator_id_type="text")
        self.connections: Connections[DictRow] = Connections(url, dict_row)

    def register_type_adapters(self) -> None:
        """None: events are inserted as arrays of plain columns."""

    @contextmanager
    def get_connection(self) -> Iterator[Connection[DictRow]]:
        """One connection, in autocommit mode. Raises `psycopg.Error`."""
        with self.connections.borrowed() as connection:
            yield connection

    def close(self) -> None:
        self.connections.close()


class PostgresRecorder(PostgresApplicationRecorder):
    """Of `infra.adapters.recorded_journal.Recorder` everything but `commit`, which `PostgresCommitter` groups."""

    datastore: _Datastore

    def __init__(self, url: str) -> None:
        super().__init__(_Datastore(url), events_table_name=EVENTS)

    def create_table(self) -> None:
        """See `Recorder`. Processes that start at the same time take turns."""
        with self.datastore.get_connection() as connection, transaction(connection):
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('schema of the journal', 0))")
            connection.execute(_SCHEMA.encode())

    def commit_all(self, appends: Sequence[Append]) -> list[Outcome]:
        """Appends what can be, in the order given, in one transaction. One that is refused does not hold up the others.

        Raises `psycopg.Error`: then none was, unless the connection was lost, which leaves it open until `settled`.
        """
        with self.datastore.get_connection() as connection, transaction(connection):
            cursor = connection.cursor()
            self._lock_table(cursor)
            return self._append(cursor, appends)

    def _append(self, cursor: Cursor[DictRow], appends: Sequence[Append]) -> list[Outcome]:
        group = _Group(*_known(cursor, appends))
        refused = [group.admit(append) for append in appends]
        events = [event for append, no in zip(appends, refused, strict=True) if no is None for event in append.events]
        positions = iter(self._insert(cursor, events))
        outcomes: list[Outcome] = []
        rows: list[CommandRow] = []
        position = self._end(cursor) if _needs_end(appends) else 0
        for append, no in zip(appends, refused, strict=True):
            if no is not None:
                outcomes.append(no)
                continue
            for _ in append.events:
                position = next(positions)
            outcomes.append(position)
            if append.row is not None:
                rows.append(_at(append.row, position))
        _insert_rows(cursor, rows)
        return outcomes
