"""`Lease` as a row in PostgreSQL: who holds it, and until when by the database's clock.

A row and not a session lock: a connection that is half open keeps a lock, while a row simply expires.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.rows import TupleRow, tuple_row

from domain.errors import Unavailable
from infra.adapters.postgres import Connections, transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until TIMESTAMPTZ NOT NULL
)"""
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('schema of the leases', 0))"

# clock_timestamp(): the time when the row is looked at, not when the statement began to wait for it.
_HOLD = """
INSERT INTO leases AS held VALUES (%(name)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE held.holder = excluded.holder OR held.until <= clock_timestamp()
RETURNING 1"""
_RELEASE = "DELETE FROM leases WHERE name = %(name)s AND holder = %(holder)s"


class PostgresLease:
    """See `commands.ports.Lease`. `holder` names this process among all others, and no two runs of it."""

    def __init__(self, url: str, name: str, holder: str, seconds: float) -> None:
        self.seconds = seconds
        self._row = {"name": name, "holder": holder, "seconds": seconds}
        self._connections = Connections(url, tuple_row)
        with self._borrowed() as connection, transaction(connection):
            connection.execute(_ALONE)
            connection.execute(_SCHEMA)

    def hold(self) -> bool:
        """See `Lease`."""
        with self._borrowed() as connection:
            return connection.execute(_HOLD, self._row).fetchone() is not None

    def release(self) -> None:
        """See `Lease`."""
        with self._borrowed() as connection:
            connection.execute(_RELEASE, self._row)

    def close(self) -> None:
        """Gives up the connection; the lease stays until it expires."""
        self._connections.close()

    @contextmanager
    def _borrowed(self) -> Iterator[psycopg.Connection[TupleRow]]:
        try:
            with self._connections.borrowed() as connection:
                yield connection
        except psycopg.Error as error:
            raise Unavailable(f"lease: {error}", code="lease_unavailable") from error
