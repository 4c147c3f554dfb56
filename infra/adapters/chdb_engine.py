"""The analytics engine through clickhouse-connect: ClickHouse in process (chDB) or a server, with the same SQL.

A path is owned by one process. Clients are pooled: each serves one thread at a time. Every error is `Unavailable`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import clickhouse_connect
import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as ClientError
from urllib3.exceptions import HTTPError

from domain.errors import Unavailable
from infra.adapters.native_block import native_block

DATABASE = "tollhouse"
"""Where the tables are, unless a URL names another. Stored format."""

SETTINGS = {"date_time_input_format": "best_effort", "date_time_output_format": "iso", "session_timezone": "UTC"}

_PIECE = 1 << 19
"""Bytes that a streamed answer is read by."""

_BROKEN_OFF = b"__exception__\r\n"

_INSERT = {"optimize_on_insert": 0}  # merging comes later

T = TypeVar("T")

Connect = Callable[[str | None], Client]
"""Makes a client of a database (None: the default one)."""


def in_process(path: Path) -> "Analytics":
    """The engine in this process, its data in the folder `path`."""
    return Analytics(
        lambda database: clickhouse_connect.get_client(
            interface="chdb", path=str(path), database=database, settings=SETTINGS
        )
    )


class Analytics:
    """Queries, commands and inserts. Safe to use from any thread. Makes `database` where it is not.

    `later`: it connects when it is first used, so a server may come later; else at once.
    """

    def __init__(self, connect: Connect, database: str = DATABASE, *, later: bool = False) -> None:
        self._connect, self._database, self._made = connect, database, False
        self._idle: list[Client] = []
        self._closed = False
        if not later:
            with self._client():
                pass

    @contextmanager
    def _client(self) -> Iterator[Client]:
        with _answering():
            client = self._borrow()
            try:
                yield client
            finally:
                if self._closed:
                    client.close()
                else:
                    self._idle.append(client)

    def _borrow(self) -> Client:
        try:
            return self._idle.pop()
        except IndexError:
            if not self._made:
                first = self._connect(None)
                first.command(f"CREATE DATABASE IF NOT EXISTS `{self._database}`")
                first.close()
                self._made = True
            return self._connect(self._database)

    def command(self, sql: str) -> None:
        """Runs a statement that answers nothing."""
        with self._client() as client:
            client.command(sql)

    def insert(self, table: str, rows: list[Any]) -> None:
        """Inserts msgspec structs (`array_like`, named as the columns), one block: all of them or none."""
        if rows:
            columns = rows[0].__struct_fields__
            with self._client() as client:
                client.raw_insert(table, columns, native_block(rows), _INSERT, fmt="Native")

    def query(self, shape: type[T], sql: str, params: Mapping[str, Any] | None = None) -> list[T]:
        """The rows of a query, each an object of `shape` (an `array_like` struct, fields in the order selected)."""
        with self._client() as client:
            body = client.raw_query(sql, parameters=dict(params or {}), fmt="JSONCompactEachRow")
        return msgspec.json.Decoder(shape).decode_lines(body)

    def stream(self, shape: type[T], sql: str, params: Mapping[str, Any] | None = None) -> Iterator[list[T]]:
        """The rows of a query, in pieces as they come, as of one moment; each an object of `shape` (fields by name)."""
        decode = msgspec.json.Decoder(shape).decode_lines
        with self._client() as client:
            opened = cast(BinaryIO, client.raw_stream(sql, dict(params or {}), fmt="JSONEachRow"))
            rest = b""
            with closing(opened) as stream:
                while piece := stream.read(_PIECE):
                    whole, newline, rest = (rest + piece).rpartition(b"\n")
                    if newline:
                        yield _whole(decode, whole)
            if rest:
                yield _whole(decode, rest)

    def value(self, sql: str, params: Mapping[str, Any] | None = None) -> str:
        """The one value of the one row, as text."""
        with self._client() as client:
            body = client.raw_query(sql, parameters=dict(params or {}), fmt="TabSeparatedRaw")
        return body.decode().rstrip("\n")

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


def _whole(decode: Callable[[bytes], list[T]], lines: bytes) -> list[T]:
    """A server that fails in the middle of an answer says so behind its rows."""
    if _BROKEN_OFF in lines:
        raise Unavailable(f"analytics: {lines[lines.index(_BROKEN_OFF) :]!s:.500}", code="analytics_unavailable")
    return decode(lines)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (ClientError, HTTPError) as error:  # the second while an answer is read piece by piece
        raise Unavailable(f"analytics: {error!s:.500}", code="analytics_unavailable") from error
