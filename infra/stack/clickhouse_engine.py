"""ClickHouse's engine in this process (chDB), asked as ClickHouse's HTTP interface asks a server: a request is a statement with
its data, parameters, settings and, if it names one, a session."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import chdb
from msgspec import Struct

SESSION_SECONDS = 60.0
"""How long a session that nobody uses is kept, unless the request says otherwise."""

DEFAULT_FORMAT = "TabSeparated"

_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_INSERT = re.compile(
    rb"\s*(INSERT\s+INTO\s+(?:TABLE\s+)?[^\s(]+\s*(?:\([^)]*\))?\s*(?:SETTINGS\s+[^\n]*?)?)\s*FORMAT\s+(\w+)(?:\s*;)?(?:\s|$)",
    re.IGNORECASE,
)
_WORD = re.compile(rb"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(\w+)", re.DOTALL)
_CODE = re.compile(r"Code: (\d+)\.")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ANSWERING = frozenset((b"SELECT", b"WITH", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK", b"FROM"))
_STREAMED = frozenset(("Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow", "JSONCompactEachRow"))
"""Formats whose blocks can be written one behind the other."""

UNKNOWN_EXCEPTION, SESSION_NOT_FOUND, SESSION_IS_LOCKED = 1002, 372, 373


class Refused(Exception):
    """The engine's own error: `code` as in ClickHouse, and its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def by(cls, error: Exception) -> "Refused":
        """From what chDB raised."""
        text = str(error)
        text = text[max(0, text.find("Code: ")) :].strip()
        found = _CODE.search(text)
        return cls(int(found[1]) if found else UNKNOWN_EXCEPTION, text)


class Statement(Struct, frozen=True, kw_only=True):
    """What a request asks for. `data`: what is inserted, where it does not stand in `sql`. `params` by name."""

    sql: bytes
    data: bytes = b""
    database: str = ""
    params: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}
    format: str = DEFAULT_FORMAT
    streamed: bool = False
    session: str = ""
    session_seconds: float = SESSION_SECONDS
    session_check: bool = False


class Answer(Struct):
    """`pieces` of the body. `format` None: the statement answers nothing. `summary` is whole when the pieces are."""

    pieces: Iterator[bytes]
    format: str | None
    summary: dict[str, str]


class _Session:
    def __init__(self, handle: Any) -> None:
        self.handle, self.busy = handle, threading.Lock()
        self.until = 0.0


class Engine:
    """The engine on the folder `path`. Use it from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = str(path.resolve())
        self._root = chdb.connect(self._path)  # the engine ends with its last handle
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    @contextmanager
    def run(self, asked: Statement) -> Iterator[Answer]:
        """The answer to a statement. Raises `Refused`, also while the pieces are taken."""
        try:
            with self._handle(asked) as handle:
                yield _run(handle, asked)
        except (RuntimeError, chdb.ChdbError) as error:
            raise Refused.by(error) from error

    def close(self) -> None:
        """What was written is in the files."""
        for session in self._sessions.values():
            session.handle.close()
        self._root.close()

    @contextmanager
    def _handle(self, asked: Statement) -> Iterator[Any]:
        if asked.session:
            with self._in_session(asked) as handle:
                yield handle
            return
        handle = chdb.connect(self._path)
        try:
            _set_up(handle, asked)
            yield handle
        finally:
            handle.close()

    @contextmanager
    def _in_session(self, asked: Statement) -> Iterator[Any]:
        session = self._session(asked)
        if not session.busy.acquire(blocking=False):
            raise Refused(SESSION_IS_LOCKED, _told(SESSION_IS_LOCKED, f"Session {asked.session} is locked", "LOCKED"))
        try:
            before = _settings(session.handle, asked.settings)
            _set_up(session.handle, asked)
            try:
                yield session.handle
            finally:
                with suppress(RuntimeError, chdb.ChdbError):  # the session is of no use then, and says so itself
                    _set(session.handle, before)
        finally:
            session.until = time.monotonic() + asked.session_seconds
            session.busy.release()

    def _session(self, asked: Statement) -> _Session:
        with self._lock:
            now = time.monotonic()
            for name, session in list(self._sessions.items()):
                if session.until < now and not session.busy.locked():
                    self._sessions.pop(name).handle.close()
            found = self._sessions.get(asked.session)
            if found is None:
                if asked.session_check:
                    text = _told(SESSION_NOT_FOUND, f"Session {asked.session} not found", "SESSION_NOT_FOUND")
                    raise Refused(SESSION_NOT_FOUND, text)
                found = self._sessions[asked.session] = _Session(chdb.connect(self._path))
            found.until = now + asked.session_seconds
            return found


def _run(handle: Any, asked: Statement) -> Answer:
    insert = _INSERT.match(asked.sql)
    if insert is not None:
        return _insert(handle, asked, insert)
    sql = asked.sql + b"\n" + asked.data if asked.data else asked.sql
    trailing = _TRAILING_FORMAT.search(sql)
    word = _WORD.match(sql)
    answers = trailing is not None or (word is not None and word[1].upper() in _ANSWERING)
    form = trailing[1].decode() if trailing else asked.format
    if answers and asked.streamed and form in _STREAMED:
        return _stream(handle, sql, form, asked.params)
    began = time.monotonic_ns()
    result = handle.query(sql, form, params=dict(asked.params))
    return Answer(iter((result.bytes() or b"",)), form if answers else None, _read(result, began))


def _stream(handle: Any, sql: bytes, form: str, params: Mapping[str, str]) -> Answer:
    began = time.monotonic_ns()
    stream = handle.send_query(sql, form, params=dict(params))
    first = stream.fetch()  # most errors come here, and are an error of the request then

    def pieces() -> Iterator[bytes]:
        piece = first
        try:
            while piece is not None:
                yield piece.bytes() or b""
                piece = stream.fetch()
        finally:
            stream.close()

    return Answer(pieces(), form, {"elapsed_ns": str(time.monotonic_ns() - began)})


def _insert(handle: Any, asked: Statement, found: "re.Match[bytes]") -> Answer:
    """An insert of data in a format: the data become a file for the engine, since a statement is text and they may not be."""
    inline = asked.sql[found.end() :]
    file = os.memfd_create("insert")
    try:
        for part in (inline, asked.data):
            view = memoryview(part)
            while view:
                view = view[os.write(file, view) :]
        began = time.monotonic_ns()
        sql = b"%s FROM INFILE '/proc/self/fd/%d' FORMAT %s" % (found[1], file, found[2])
        result = handle.query(_settings_last(sql), DEFAULT_FORMAT, params=dict(asked.params))
    finally:
        os.close(file)
    rows, size = str(result.rows_read()), str(result.bytes_read())
    elapsed = str(time.monotonic_ns() - began)
    summary = {
        "read_rows": rows,
        "read_bytes": size,
        "written_rows": rows,
        "written_bytes": size,
        "elapsed_ns": elapsed,
    }
    return Answer(iter(()), None, summary)


def _settings_last(sql: bytes) -> bytes:
    """``INSERT INTO t SETTINGS a=1 FROM INFILE … FORMAT f`` with the settings where the engine takes them."""
    found = re.search(rb"(\sSETTINGS\s.*?)(\sFROM INFILE '[^']*')(\sFORMAT \w+)$", sql, re.IGNORECASE | re.DOTALL)
    return sql if found is None else sql[: found.start()] + found[2] + found[1] + found[3]


def _read(result: Any, began: int) -> dict[str, str]:
    rows, size = str(result.rows_read()), str(result.bytes_read())
    return {"read_rows": rows, "read_bytes": size, "elapsed_ns": str(time.monotonic_ns() - began)}


def _set_up(handle: Any, asked: Statement) -> None:
    if asked.database:
        handle.query(f"USE `{asked.database.replace('`', '``')}`", DEFAULT_FORMAT)
    _set(handle, {name: _quoted(value) for name, value in asked.settings.items()})


def _set(handle: Any, literals: Mapping[str, str]) -> None:
    if literals:
        handle.query(
            "SET " + ", ".join(f"{_named(name)} = {value}" for name, value in literals.items()), DEFAULT_FORMAT
        )


def _settings(handle: Any, names: Mapping[str, str]) -> dict[str, str]:
    """What `names` are set to in a session, as literals."""
    if not names:
        return {}
    listed = ", ".join(_quoted(name) for name in names)
    sql = f"SELECT name, value, changed FROM system.settings WHERE name IN ({listed})"
    found = dict.fromkeys(names, "DEFAULT")
    for line in handle.query(sql, "JSONEachRow").bytes().splitlines():
        row = json.loads(line)
        if row["changed"]:
            found[row["name"]] = _quoted(row["value"])
    return found


def _named(setting: str) -> str:
    if not _NAME.match(setting):
        raise Refused(115, _told(115, f"Unknown setting {setting!r:.80}", "UNKNOWN_SETTING"))
    return setting


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _told(code: int, text: str, name: str) -> str:
    return f"Code: {code}. DB::Exception: {text}. ({name})"
