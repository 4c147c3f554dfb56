"""One connection as HTTP/1.1 wants it: what a stranger may say, and what he hears where he says something else.

A protocol for uvicorn's server, by httptools' parser:

* A head is bounded in bytes and fields. What two readers could read in two ways is refused, whatever the parser would make of
  it: another transfer coding than ``chunked``, none or several hosts, fields behind a body are no headers.
* An offer to change protocols (``Upgrade``) is passed over, and the request's body with it is read: the parser would drop it.
* A refusal is an error object with an id, comes behind the answers that are still owed, and ends the connection.
* What the application does not answer, because it failed or the drain was over, is an error object with an id too.
* An answer that came before its request was whole ends the connection too. Whoever may still be sending is left gently: what
  comes is thrown away for a moment, so that he can take the answer.
* An answer without a length ends with its connection where the client speaks HTTP/1.0, and breaks it if it is not whole.
* Every request of a connection learns that its caller has gone, not only the last one. A caller who closes his side has gone.
"""

import asyncio
import re
import socket
import struct
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from cli.http_cycle import Cycle, Refusal

HEAD_BYTES = 64 * 1024
"""About what a request may send beside its body: request line, headers, and the framing of a chunked body."""

HEAD_FIELDS = 256

KEEP_ALIVE_SECONDS = 75.0
"""How long a connection may wait for its next request."""

LINGER_SECONDS = 5.0
"""How long what a refused caller still sends is thrown away."""

_RESET = struct.pack("ii", 1, 0)
"""As `SO_LINGER`: a connection that is closed so breaks."""

_LOOKED_AT = frozenset({b"host", b"transfer-encoding", b"expect"})
_HOST = re.compile(rb"[0-9A-Za-z._~%!$&'()*+,;=:\[\]-]*")
_UPGRADING = frozenset({b"upgrade", b"http2-settings"})
_ASGI = {"version": "3.0", "spec_version": "2.3"}


MALFORMED = Refusal(400, "invalid_http", "this is no HTTP/1.1 request, or one that could be read in two ways")
TOO_LARGE = Refusal(431, "head_too_large", f"request line, headers and framing may have {HEAD_BYTES} bytes together")
TOO_LATE = Refusal(408, "request_timeout", "the request did not arrive in time")


class HttpConfig(uvicorn.Config):
    """`observe(endpoint, status, code)` counts what the connections themselves refused, if it is there."""

    observe: Callable[[str, int, str], None] | None = None


class _Phase(Enum):
    """What a connection waits for."""

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    WHOLE = "an answer"
    LINGERING = "the caller to go"


class HttpProtocol(asyncio.Protocol):
    """See the module."""

    room: asyncio.Event
    transport: asyncio.Transport
    resumed = 0
    """How often what was to be sent had grown too large, and found room again."""

    def __init__(self, config: HttpConfig, server_state: ServerState, **_lifespan: Any) -> None:
        """As uvicorn's server makes it."""
        self._loop = asyncio.get_running_loop()
        self.room = asyncio.Event()
        self.room.set()
        self._app, self._observe, self._state = config.loaded_app, config.observe, server_state
        self._parser = _parser(self)
        self._phase = _Phase.IDLE
        self._since = self._loop.time()
        """When the phase began."""
        self._fed = self._begun = self._beside = 0
        """Bytes: of the last piece, of the one that a request began in, and of those since that are no body."""
        self._deaf = self._paused = False
        """Whether what comes is thrown away; whether nothing is read."""
        self._wrong = MALFORMED
        self._owed: Refusal | None = None
        self._addresses: dict[str, Any] = {}
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._hosts = 0
        self._expects = self._miscoded = False
        self._coming: Cycle | None = None
        """The request that is being read, or was read last."""
        self._running: Cycle | None = None
        """The one whose turn it is, or was last."""
        self._waiting: deque[Cycle] = deque()

    @property
    def full(self) -> bool:
        """Whether nothing can be added to what the connection has to send."""
        over = self._coming is not None and self._coming.complete
        return over or not self.room.is_set() or self.transport.is_closing()

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's own class is none of asyncio's
        self._addresses = {"server": get_local_addr(self.transport), "client": get_remote_addr(self.transport)}
        self._state.connections.add(self)  # type: ignore[arg-type]  # any protocol with a transport and `shutdown`

    def connection_lost(self, _exc: Exception | None) -> None:
        self._state.connections.discard(self)
        for cycle in (self._running, *self._waiting):
            if cycle is not None and not cycle.complete:
                cycle.leave()
        self.room.set()
        self._waiting.clear()
        self._running = self._coming = self._parser = None  # nothing keeps the other alive

    def shutdown(self) -> None:
        """The server drains: this connection ends with what it has read."""
        if self._phase is _Phase.LINGERING:
            return
        if self._coming is None or self._coming.complete:
            self.transport.close()
        else:
            self._coming.keep_alive = False

    def cut_short(self) -> None:
        """The drain is over: this connection ends with the answer that it is at."""
        if self._running is not None:
            self._running.keep_alive = False

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.resumed += 1
        self.room.set()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._fed = len(data)
        self._beside += self._fed
        try:
            while data:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._without_upgrade() + data[upgrade.args[0] :]
                    self._fed = len(data)
        except httptools.HttpParserError:
            self._refuse(self._wrong)
        else:
            if self._beside > HEAD_BYTES and not self.transport.is_closing():
                self._refuse(TOO_LARGE)

    def look(self, now: float, seconds: float) -> None:
        """Ends what waits too long, at `now`: a head may take `seconds`, and twice that with its body (who reads it may have a
        better word before)."""
        waited = now - self._since
        if self._phase is _Phase.IDLE:
            if waited > KEEP_ALIVE_SECONDS:
                self.transport.close()
        elif self._phase is _Phase.LINGERING:
            if waited > LINGER_SECONDS:
                self.transport.abort()
        elif (self._phase is _Phase.HEAD and waited > seconds) or (self._phase is _Phase.BODY and waited > 2 * seconds):
            if self._answering_another():  # which keeps this one from being read
                self._since = now
            else:
                self._refuse(TOO_LATE)

    def end(self) -> None:
        """Ends the connection once everything is sent; the caller need not have sent everything."""
        if self.transport.is_closing() or self._phase is _Phase.LINGERING:
            return
        if self._running is not None and self._running.torn:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
            return
        if self._phase in (_Phase.IDLE, _Phase.WHOLE) and not self._deaf and not self._waiting:
            self.transport.close()
            return
        self._deaf = True
        self._enter(_Phase.LINGERING)
        self.listen()
        self.transport.write_eof()

    def listen(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def wait(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    # -- what the parser found

    def on_message_begin(self) -> None:
        self._beside = self._hosts = 0
        self._begun = self._fed
        self._url, self._headers = b"", []
        self._expects = self._miscoded = False
        self._enter(_Phase.HEAD)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not _Phase.HEAD:
            return  # what comes behind a body is no header
        name = name.lower()
        if name in _LOOKED_AT:
            self._look_at(name, value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        method = self._parser.get_method()
        if self._parser.should_upgrade() and method != b"CONNECT":
            return  # `data_received` says it again, without
        version = self._parser.get_http_version()
        self._check_head(method, version)
        path, query = self._split_url()
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "scheme": "http",
            "method": method.decode("ascii"),
            "root_path": "",
            "path": unquote(path.decode("ascii")) if b"%" in path else path.decode("ascii"),
            "raw_path": path,
            "query_string": query,
            "headers": self._headers,
            **self._addresses,
        }
        keep = version == "1.1" and self._parser.should_keep_alive()
        self._coming = cycle = Cycle(self, scope, keep, self._expects)
        self._enter(_Phase.BODY)
        if self._running is None or self._running.complete:
            self._start(cycle)
        else:
            self.wait()
            self._waiting.append(cycle)

    def on_body(self, body: bytes) -> None:
        self._beside = max(0, self._beside - 2 * len(body))  # the framing of a chunked body grows with it
        assert self._coming is not None
        if not self._coming.complete:
            self._coming.feed(body)

    def on_message_complete(self) -> None:
        if self._phase is _Phase.HEAD:
            return  # of a request that offered an upgrade
        self._beside = 0
        self._phase = _Phase.WHOLE
        assert self._coming is not None
        if not self._coming.complete:
            self._coming.whole()

    # -- answers

    def _start(self, cycle: Cycle) -> None:
        self._running = cycle
        task = self._loop.create_task(cycle.run(self._app))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    def answered(self) -> None:
        self._state.total_requests += 1
        if self.transport.is_closing() or self._phase is _Phase.LINGERING:
            return
        self.listen()
        self._since = self._loop.time()
        if self._waiting:
            self._start(self._waiting.popleft())
        elif self._owed is not None:
            self._say(self._owed)
        elif self._phase is _Phase.WHOLE:
            self._phase = _Phase.IDLE

    # -- inside

    def _enter(self, phase: _Phase) -> None:
        self._phase, self._since = phase, self._loop.time()

    def _look_at(self, name: bytes, value: bytes) -> None:
        match name:
            case b"host":
                self._hosts += 1
                self._miscoded = self._miscoded or not _HOST.fullmatch(value)
            case b"transfer-encoding":
                chunked = value.lower() == b"chunked" and self._parser.get_http_version() == "1.1"
                self._miscoded = self._miscoded or not chunked
            case b"expect":
                # an old client takes the word for his answer
                self._expects = value.lower() == b"100-continue" and self._parser.get_http_version() == "1.1"

    def _check_head(self, method: bytes, version: str) -> None:
        """Raises `ValueError`, and leaves what to say in `_wrong`."""
        if self._miscoded:
            raise ValueError("a host that is none, or a transfer coding that is not known")
        if version not in ("1.1", "1.0") or self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise ValueError("no request of HTTP/1.1 or 1.0")
        if method == b"CONNECT":
            raise ValueError("a tunnel")
        perhaps = self._begun + self._beside > HEAD_BYTES  # else it cannot be
        if len(self._headers) > HEAD_FIELDS or (perhaps and self._head_size() > HEAD_BYTES):
            self._wrong = TOO_LARGE
            raise ValueError("a head that is too large")

    def _head_size(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _split_url(self) -> tuple[bytes, bytes]:
        """Path and query."""
        if self._url.startswith(b"/") and b"#" not in self._url:
            path, _, query = self._url.partition(b"?")
            return path, query
        url = httptools.parse_url(self._url)
        return url.path or b"/", url.query or b""

    def _without_upgrade(self) -> bytes:
        """The head that the parser stopped behind, without its offer to change protocols, for a new parser."""
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._url, self._parser.get_http_version().encode())]
        for name, value in self._headers:
            if name == b"connection":
                value = b", ".join(word for word in value.split(b",") if word.strip().lower() not in _UPGRADING)
            if name not in _UPGRADING:
                lines.append(b"%b: %b" % (name, value))
        self._parser = _parser(self)
        return b"\r\n".join([*lines, b"", b""])

    def _answering_another(self) -> bool:
        """Whether the request before the one that is being read is not answered yet."""
        running = self._running
        if running is None or running.complete:
            return False
        return self._phase is _Phase.HEAD or running is not self._coming

    def _refuse(self, refusal: Refusal) -> None:
        """Nothing more is read. What is being read is dropped, what was read before is answered first."""
        self._deaf = True
        broken = self._coming
        if self._phase is _Phase.BODY and broken is not None:
            if self._waiting and self._waiting[-1] is broken:
                self._waiting.pop()
            else:
                broken.leave()
                if broken.started:
                    self.end()
                else:
                    self._say(refusal)
                return
        if self._running is not None and not self._running.complete:
            self._owed = refusal
        else:
            self._say(refusal)

    def _say(self, refusal: Refusal) -> None:
        self.transport.write(b"".join(refusal.answer()))
        if self._observe is not None:
            self._observe("unknown", refusal.status, refusal.code)
        self.end()


def _parser(protocol: HttpProtocol) -> Any:
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # a request may come behind one that is the last
    return parser
