"""The analytics engine that the setting TOLLHOUSE_CLICKHOUSE names: in this process, or a ClickHouse server over HTTP."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from domain.errors import Invalid, invalid
from infra.adapters.chdb_engine import DATABASE, SETTINGS, Analytics, in_process

SETTING = "TOLLHOUSE_CLICKHOUSE"
IN_PROCESS = "chdb:"

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
"""How long a server may be silent; a large view takes seconds to hash."""

_PORTS = {"http": 8123, "https": 8443}
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def open_analytics(named: str, *, later: bool = False) -> Analytics:
    """The engine of ``chdb:PATH`` or ``http(s)://user:password@host:port/database``; `later`: a server need not answer yet.

    Raises `Invalid` naming the setting, `Unavailable` if a server does not answer: ask again.
    """
    check_named(named)
    if named.startswith(IN_PROCESS):
        return in_process(Path(named.removeprefix(IN_PROCESS)))

    def connect(database: str | None) -> Client:
        return server_client(named, database, SETTINGS)

    return Analytics(connect, _database(urlsplit(named).path), later=later)


def server_client(
    named: str, database: str | None = None, settings: dict[str, Any] | None = None, patience: float = ANSWER_SECONDS
) -> Client:
    """A client of the server at ``http(s)://user:password@host:port``. `database` None: the user's own; `patience`: seconds.

    Raises the client library's `Error` if it does not answer.
    """
    url = urlsplit(named)
    return clickhouse_connect.get_client(
        interface=url.scheme,
        host=url.hostname,
        port=url.port or _PORTS[url.scheme],
        username=unquote(url.username or "default"),
        password=unquote(url.password or ""),
        database=database or "__default__",
        settings=settings,
        autogenerate_session_id=False,  # a session takes one query at a time, also one whose caller gave it up
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=patience,
    )


def check_named(named: str) -> None:
    """Raises `Invalid` if the setting cannot be right."""
    if named.startswith(IN_PROCESS):
        if not named.removeprefix(IN_PROCESS):
            raise _bad("must name a folder, as in chdb:./analytics")
        return
    try:
        url = urlsplit(named)
        _ = url.port
    except ValueError as error:
        raise _bad(f"is no URL: {error}") from None
    if url.scheme not in _PORTS or not url.hostname:
        raise _bad("must be chdb:PATH or http(s)://user:password@host:port/database")
    if url.query or url.fragment:
        raise _bad("must have nothing behind the database: settings are the server's")
    if not _DATABASE.fullmatch(_database(url.path)):
        raise _bad("must name a database by letters, digits and underscores")


def _database(path: str) -> str:
    return path.strip("/") or DATABASE


def _bad(text: str) -> Invalid:
    """The URL itself is not repeated: there is a password in it."""
    return invalid(SETTING, text)
