"""Connections to one PostgreSQL database, each borrowed for a transaction at a time.

Guarantees: a server that was away is used again as soon as it answers; a client that stands still in a transaction loses it
after `IDLE_SECONDS`, and with it its locks; nothing waits for a lock longer than `LOCK_SECONDS` unless it says so.
It does not bound how long a server that was stopped may keep a statement waiting.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import Row, RowFactory

CONNECT_SECONDS = 5
LOCK_SECONDS = 10
IDLE_SECONDS = 15

_SESSION = f"""
SET lock_timeout = '{LOCK_SECONDS}s';
SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s';
SET TIME ZONE 'UTC'
"""


class Connections(Generic[Row]):
    """To the database at `url`, with rows as `rows` makes them. In autocommit mode: transactions are begun by statement."""

    def __init__(self, url: str, rows: RowFactory[Row]) -> None:
        self._url, self._rows = url, rows
        self._idle: list[psycopg.Connection[Row]] = []
        self._closed = False

    @contextmanager
    def borrowed(self) -> Iterator[psycopg.Connection[Row]]:
        """A connection outside any transaction. Raises `psycopg.Error`."""
        connection = self._waiting() or self._connect()
        try:
            yield connection
        finally:
            self._take_back(connection)

    def _waiting(self) -> "psycopg.Connection[Row] | None":
        """An idle connection that the server has not ended meanwhile: it would have said so."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None  # another thread took it
            looked = select.poll()
            looked.register(connection.fileno(), select.POLLIN)
            if not looked.poll(0):
                return connection
            connection.close()
        return None

    def _connect(self) -> psycopg.Connection[Row]:
        connection = psycopg.Connection[Row].connect(
            self._url,
            row_factory=self._rows,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=CONNECT_SECONDS * 1000,
        )
        connection.execute(_SESSION)
        return connection

    def _take_back(self, connection: psycopg.Connection[Row]) -> None:
        if connection.closed:
            self._discard_idle()  # the server went away: they are of no use either
        elif self._closed or connection.info.transaction_status is not TransactionStatus.IDLE:
            connection.close()
        else:
            self._idle.append(connection)

    def _discard_idle(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return  # another thread discards too

    def close(self) -> None:
        """Closes every connection, those in use when they come back."""
        self._closed = True
        self._discard_idle()


@contextmanager
def transaction(connection: psycopg.Connection[Row], begin: bytes = b"BEGIN") -> Iterator[None]:
    """Runs `begin`, which may be several statements, then as `begun`."""
    with begun(connection):
        connection.execute(begin)
        yield


@contextmanager
def begun(connection: psycopg.Connection[Row]) -> Iterator[None]:
    """Commits at the end, rolls back on any exception."""
    with undone(connection):
        yield
        connection.execute("COMMIT")


@contextmanager
def undone(connection: psycopg.Connection[Row]) -> Iterator[None]:
    """Rolls back on any exception."""
    try:
        yield
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise
