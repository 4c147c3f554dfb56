"""Row views in one SQLite file.

Guarantees: a reader sees a view at one watermark, also while it is switched to another version, also from another
process (WAL). After kill -9 rows and watermark agree; after a power loss the last transactions may be missing, together
with their watermark, and come again from the log.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from domain.errors import Unavailable
from infra.adapters.row_views import SCHEMA, Database

_BUSY_SECONDS = 30.0


class ViewsFile:
    """`Rows` in the file at `path`. Its threads may call everything at once; each call borrows a connection."""

    shared = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        with self._borrowed() as connection:
            connection.executescript(SCHEMA)

    def query(self, sql: str, parameters: Sequence[Any], /) -> list[tuple[Any, ...]]:
        """See `Rows`."""
        with self._borrowed() as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """See `Rows`."""
        with self._borrowed() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """See `Rows`. Writers take turns."""
        with self._borrowed() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    @contextmanager
    def applying(self, places: Iterable[str]) -> Iterator[sqlite3.Connection]:  # noqa: ARG002  # every writer is alone
        """See `Rows`."""
        with self.writing() as connection:
            yield connection

    def beside(self, places: Iterable[str]) -> AbstractContextManager[sqlite3.Connection]:  # noqa: ARG002  # one process
        """See `Rows`."""
        return self.reading()

    def held(self, places: Iterable[str]) -> AbstractContextManager[None]:  # noqa: ARG002  # one process writes
        """See `Rows`."""
        return nullcontext()

    @contextmanager
    def arranging(self) -> Iterator[sqlite3.Connection]:
        """See `Rows`."""
        with self.writing() as connection:
            yield connection

    def chunks(self, db: Database, sql: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """See `Rows`."""
        assert isinstance(db, sqlite3.Connection)
        cursor = db.execute(sql)
        while rows := cursor.fetchmany(size):
            yield rows

    def close(self) -> None:
        """See `Rows`."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)
        except sqlite3.Error as error:
            raise Unavailable(f"views file: {error}", code="views_unavailable") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -32768")
        return connection
