"""Row views in PostgreSQL.

Guarantees: any number of processes may read and write; writers of one partition of a view take turns, those of different
partitions do not wait for each other. A view comes, goes and is switched between transactions, never during one. What was
applied is durable. Schema and SQL are those of `row_views`, put into PostgreSQL's words here.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import psycopg
import psycopg.sql
from psycopg.rows import TupleRow, tuple_row

from domain.errors import Unavailable
from infra.adapters.postgres import Connections, begun, transaction
from infra.adapters.row_views import SCHEMA, Database

ARRANGE_SECONDS = 60.0
"""How long a view that is to come or go waits for readers that began before; those that begin wait a second at most."""

STUCK_SECONDS = 30
"""Who keeps a place for longer than this is ended by who waits for it. A client that stands still in the middle of sending is
not idle to the server, which would wait for it for ever."""

COPIED_ROWS = 200
"""From so many rows on a statement for each row costs more than a table of their own."""

_INSERT = re.compile(r"INSERT INTO (?P<table>\w+) \((?P<columns>[^)]*)\) VALUES \([?, ]*\)(?P<rest>.*)", re.DOTALL)

_INCOMING = "CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS"

_READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE catalog IN ACCESS SHARE MODE"
_FIXED = b"LOCK TABLE catalog IN ACCESS SHARE MODE"
_ARRANGE = b"BEGIN; SET LOCAL lock_timeout = '1s'; LOCK TABLE catalog IN ACCESS EXCLUSIVE MODE"
_ALONE = b"SELECT pg_advisory_xact_lock(hashtextextended(place, 0)) FROM unnest(%s::text[]) AS place"

_END_STUCK = b"""
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND datname = current_database()
AND (classid::bigint << 32 | objid::bigint) IN (SELECT hashtextextended(place, 0) FROM unnest(%s::text[]) AS place)
AND xact_start < clock_timestamp() - make_interval(secs => %s)
"""

_TYPES = {"INTEGER": "BIGINT", "TEXT": 'TEXT COLLATE "C"', "BLOB": "BYTEA"}


class PostgresViews:
    """`Rows` in the database at `url`. Raises `Unavailable`."""

    shared = True

    def __init__(self, url: str) -> None:
        self._connections = Connections(url, tuple_row)
        with self._borrowed() as connection, transaction(connection):
            connection.execute(_ALONE, (["schema of the row views"],))
            for statement in SCHEMA.split(";"):
                connection.execute(translated(statement))

    def query(self, sql: str, parameters: Sequence[Any], /) -> list[TupleRow]:
        """See `Rows`."""
        with self._borrowed() as connection:
            return connection.execute(translated(sql), parameters).fetchall()

    @contextmanager
    def reading(self) -> Iterator["Session"]:
        """See `Rows`."""
        with self._borrowed() as connection, transaction(connection, _READ):
            yield Session(connection)

    @contextmanager
    def writing(self) -> Iterator["Session"]:
        """See `Rows`."""
        with self._borrowed() as connection, transaction(connection):
            yield Session(connection)

    @contextmanager
    def applying(self, places: Iterable[str]) -> Iterator["Session"]:
        """See `Rows`. Places are taken in order, so that two sinks never wait for each other; and before the catalog, so that
        who waits for a place keeps no view from coming or going."""
        with self._borrowed() as connection, begun(connection):
            self._begin_at(connection, sorted(places))
            yield Session(connection)

    def _begin_at(self, connection: psycopg.Connection[TupleRow], places: list[str]) -> None:
        named = psycopg.sql.Literal(places).as_bytes(connection)
        try:
            connection.execute(b"BEGIN; " + _ALONE.replace(b"%s", named) + b"; " + _FIXED)
        except psycopg.errors.LockNotAvailable:
            with self._connections.borrowed() as other:
                other.execute(_END_STUCK, (places, STUCK_SECONDS))
            raise

    def beside(self, places: Iterable[str]) -> AbstractContextManager["Session"]:
        """See `Rows`."""
        return self.applying(places)

    @contextmanager
    def held(self, places: Iterable[str]) -> Iterator[None]:
        """See `Rows`."""
        with self._borrowed() as connection, transaction(connection):
            connection.execute(_ALONE, (sorted(places),))
            yield

    @contextmanager
    def arranging(self) -> Iterator["Session"]:
        """See `Rows`. Waits `ARRANGE_SECONDS` for what is under way."""
        with self._borrowed() as connection, begun(connection):
            _begin_alone(connection)
            yield Session(connection)

    def chunks(self, db: Database, sql: str, size: int) -> Iterator[list[TupleRow]]:
        """See `Rows`."""
        assert isinstance(db, Session)
        with db.connection.cursor(name="chunks") as cursor:
            cursor.execute(translated(sql))
            while rows := cursor.fetchmany(size):
                yield rows

    def close(self) -> None:
        """See `Rows`."""
        self._connections.close()

    @contextmanager
    def _borrowed(self) -> Iterator[psycopg.Connection[TupleRow]]:
        try:
            with self._connections.borrowed() as connection:
                yield connection
        except psycopg.Error as error:
            raise Unavailable(f"views database: {error}", code="views_unavailable") from error


def _begin_alone(connection: psycopg.Connection[TupleRow]) -> None:
    """Begins a transaction that is alone. Waits in short turns, since whoever comes meanwhile waits behind it."""
    deadline = time.monotonic() + ARRANGE_SECONDS
    while True:
        try:
            connection.execute(_ARRANGE)
        except psycopg.errors.LockNotAvailable:
            connection.rollback()
            if time.monotonic() > deadline:
                raise
        else:
            return


class Session:
    """`Database` on one connection, for one transaction."""

    def __init__(self, connection: psycopg.Connection[TupleRow]) -> None:
        self.connection = connection
        self._filled: set[str] = set()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> psycopg.Cursor[TupleRow]:
        """See `Database`."""
        return self.connection.execute(translated(sql), parameters or None)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> None:
        """See `Database`. Many rows to be inserted go through a table of the session, and from there at once."""
        rows = list(parameters)
        if len(rows) >= COPIED_ROWS and (insert := _INSERT.fullmatch(sql)):
            self._copy(insert["table"], insert["columns"], insert["rest"], rows)
        elif rows:
            self.connection.cursor().executemany(translated(sql), rows)

    def _copy(self, table: str, columns: str, rest: str, rows: Sequence[Sequence[Any]]) -> None:
        incoming = f"incoming_{table}"
        with self.connection.cursor() as cursor:
            if incoming in self._filled:
                cursor.execute(f"TRUNCATE {incoming}".encode())
            else:
                cursor.execute(_INCOMING.format(incoming, table).encode())
            with cursor.copy(f"COPY {incoming} ({columns}) FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)
            cursor.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {incoming}{rest}".encode())
        self._filled.add(incoming)


@lru_cache(maxsize=1024)
def translated(sql: str) -> bytes:
    """SQL of the row views in PostgreSQL's words."""
    if sql.lstrip().startswith("CREATE TABLE"):
        sql = re.sub(r"\b(INTEGER|TEXT|BLOB)\b", lambda found: _TYPES[found[0]], sql.replace(" WITHOUT ROWID", ""))
    return sql.replace("%", "%%").replace("json_each(?)", "json_array_elements(?::json)").replace("?", "%s").encode()
