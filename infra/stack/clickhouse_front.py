"""An HTTP server over ClickHouse's engine in process that ClickHouse's own client takes for a ClickHouse server.

For development and tests where no server can be installed: the SQL, the types and the errors are the engine's own, and so is
what is kept through kill -9. It has one user and no cluster, and is slower than a server. ``python -m
infra.stack.clickhouse_front FILE`` runs it; the file (JSON, mode 0600) names the port, folder, user and password.
"""

import base64
import hmac
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Mapping
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from chdb import ChdbError

from infra.stack.clickhouse_coding import PLAIN, decoded, encoder
from infra.stack.clickhouse_engine import DEFAULT_FORMAT, SESSION_SECONDS, Engine, Refused, Statement
from infra.stack.ports import HOST

AUTHENTICATION_FAILED, NOT_IMPLEMENTED = 516, 48

_STATUS = {
    AUTHENTICATION_FAILED: 403,
    **dict.fromkeys((6, 8, 26, 27, 38, 41, 43, 44, 53, 62, 69, 70, 72, 117, 456, 457), 400),
    **dict.fromkeys((36, 46, 47, 50, 56, 60, 73, 81, 115), 404),
    NOT_IMPLEMENTED: 501,
    159: 408,
    229: 413,
}
"""HTTP's status for the engine's codes, 500 for all others."""

_OWN = ("query", "query_id", "database", "default_format", "user", "password", "quota_key", "role")
_OF_SESSION = ("session_id", "session_timeout", "session_check", "close_session")
_OF_TRANSFER = ("compress", "decompress", "stacktrace", "buffer_size", "wait_end_of_query", "client_protocol_version")
_IDLE = ("send_progress_in_http_headers", "http_headers_progress_interval_ms", "enable_http_compression")
_IDLE_TOO = ("cancel_http_readonly_queries_on_client_close",)
_NO_SETTINGS = frozenset((*_OWN, *_OF_SESSION, *_OF_TRANSFER, *_IDLE, *_IDLE_TOO))
"""Parameters of a request that the interface itself takes, and settings that would change nothing here."""


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`folder`: the engine's. `port` 0: any free one."""

    port: int
    folder: str
    user: str
    password: str


class Front(ThreadingHTTPServer):
    """The server, once it is made it listens."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, configuration: Configuration, engine: Engine) -> None:
        self.configuration, self.engine = configuration, engine
        super().__init__((HOST, configuration.port), _Request)

    @property
    def url(self) -> str:
        """What a client takes."""
        own = self.configuration
        return f"http://{own.user}:{own.password}@{HOST}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Request(BaseHTTPRequestHandler):
    server: Front
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        if urlsplit(self.path).path in ("/ping", "/replicas_status") or self.path == "/":
            self._send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
            return
        self.do_POST()

    def do_POST(self) -> None:
        self._begun = False
        query_id = str(uuid.uuid4())
        try:
            body = self._body()
            params = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
            query_id = params.get("query_id") or query_id
            body, params = _form(self.headers.get("Content-Type", ""), body, params)
            self._authenticate(params)
            self._answer(_statement(params, body, read_only=self.command == "GET"), params, query_id)
        except Refused as error:
            self._refuse(error, query_id)

    def _answer(self, asked: Statement, params: Mapping[str, str], query_id: str) -> None:
        tag = uuid.uuid4().hex[:16]
        with self.server.engine.run(asked) as answer:
            headers = {
                "Content-Type": "text/tab-separated-values; charset=UTF-8",
                "X-ClickHouse-Query-Id": query_id,
                "X-ClickHouse-Server-Display-Name": "front",
                "X-ClickHouse-Timezone": "UTC",
                "X-ClickHouse-Exception-Tag": tag,
                "X-ClickHouse-Summary": msgspec.json.encode(answer.summary).decode(),
            }
            if answer.format is not None:
                headers["X-ClickHouse-Format"] = answer.format
            coding = (
                encoder(self.headers.get("Accept-Encoding", ""))
                if params.get("enable_http_compression") == "1"
                else PLAIN
            )
            if coding.name:
                headers["Content-Encoding"] = coding.name
            if not asked.streamed:
                self._send(200, b"".join(map(coding.compress, answer.pieces)) + coding.flush(), headers)
                return
            self._head(200, {**headers, "Transfer-Encoding": "chunked"})
            try:
                for piece in answer.pieces:
                    self._chunk(coding.compress(piece))
            except (RuntimeError, ChdbError) as error:
                self._chunk(coding.compress(_exception(str(error), tag)) + coding.flush())
                self.close_connection = True  # and no last chunk: nobody can take it for a whole answer
                return
            self._chunk(coding.flush())
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _authenticate(self, params: Mapping[str, str]) -> None:
        user, password = self.headers.get("X-ClickHouse-User", ""), self.headers.get("X-ClickHouse-Key", "")
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
            except ValueError:
                user = password = ""
        user, password = params.get("user", user), params.get("password", password)
        own = self.server.configuration
        told = f"{user or 'default'}\0{password}".encode()
        if not hmac.compare_digest(told, f"{own.user}\0{own.password}".encode()):
            text = f"Code: {AUTHENTICATION_FAILED}. DB::Exception: {user or 'default'}: Authentication failed."
            raise Refused(AUTHENTICATION_FAILED, f"{text} (AUTHENTICATION_FAILED)")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = self._chunked()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        encoding = self.headers.get("Content-Encoding", "")
        try:
            return decoded(body, encoding)
        except KeyError:
            raise _not_implemented(f"encoding {encoding!r:.20}") from None

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass
        return b"".join(parts)

    def _refuse(self, error: Refused, query_id: str) -> None:
        headers = {
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Exception-Code": str(error.code),
        }
        if self._begun:
            self.close_connection = True
            return
        self._send(_STATUS.get(error.code, 500), f"{error}\n".encode(), headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        self.wfile.write(body)
        self.wfile.flush()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self._begun = True
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, piece: bytes) -> None:
        if piece:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: they hold what is inserted."""


def _statement(params: Mapping[str, str], body: bytes, *, read_only: bool) -> Statement:
    if params.get("compress") == "1" or params.get("decompress") == "1":
        raise _not_implemented("the native compression")
    settings = {n: v for n, v in params.items() if n not in _NO_SETTINGS and not n.startswith("param_")}
    if read_only:
        settings["readonly"] = "2"
    query = params.get("query", "").encode()
    return Statement(
        sql=query or body,
        data=body if query else b"",
        database=params.get("database", ""),
        params={name.removeprefix("param_"): value for name, value in params.items() if name.startswith("param_")},
        settings=settings,
        format=params.get("default_format", DEFAULT_FORMAT),
        streamed=params.get("wait_end_of_query") != "1",
        session=params.get("session_id", ""),
        session_seconds=float(params.get("session_timeout", SESSION_SECONDS)),
        session_check=params.get("session_check") == "1",
    )


def _form(kind: str, body: bytes, params: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """The fields of a form count as parameters of the URL; files (external tables) are not taken."""
    if not kind.startswith("multipart/form-data"):
        return body, params
    form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    fields = dict(params)
    for part in form.get_payload():
        assert not isinstance(part, str)
        if part.get_filename():
            raise _not_implemented("external tables")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        fields[str(part.get_param("name", header="content-disposition"))] = content.decode()
    return b"", fields


def _not_implemented(what: str) -> Refused:
    return Refused(NOT_IMPLEMENTED, f"Code: {NOT_IMPLEMENTED}. DB::Exception: {what}. (NOT_IMPLEMENTED)")


def _exception(text: str, tag: str) -> bytes:
    """An error behind the first bytes of an answer, as ClickHouse 25.11 and later write it."""
    told = f"{text}\n"
    return f"\r\n__exception__\r\n{tag}\r\n{told}{len(told.encode())} {tag}\r\n__exception__\r\n".encode()


def main(file: str) -> None:
    """Serves until SIGTERM."""
    configuration = msgspec.json.decode(Path(file).read_bytes(), type=Configuration)
    folder = Path(configuration.folder)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    engine = Engine(folder)
    front = Front(configuration, engine)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=front.shutdown).start())
    try:
        front.serve_forever(poll_interval=0.1)
    finally:
        front.socket.shutdown(socket.SHUT_RDWR)
        front.server_close()
        engine.close()


if __name__ == "__main__":
    main(sys.argv[1])
