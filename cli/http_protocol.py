"""One connection as HTTP/1.1 wants it: what a stranger may say, and what he hears where he says something else.

uvicorn's protocol with httptools' parser, and on top of that:

* A head is bounded in bytes and fields. What two readers could read in two ways is refused, whatever the parser would make of
  it: another transfer coding than ``chunked``, none or several hosts, fields behind a body are no headers.
* An offer to change protocols (``Upgrade``) is passed over, and the request's body with it is read: the parser would drop it.
* A refusal is an error object with an id, comes behind the answers that are still owed, and ends the connection.
* What the application does not answer, because it failed or the drain was over, is an error object with an id too.
* An answer that came before its request was whole ends the connection too, gently: what the caller still sends is thrown away
  for a moment, so that he can take the answer.
* An answer without a length ends with its connection where the client speaks HTTP/1.0, and breaks it if it is not whole.
* Every request of a connection learns that its caller has gone, not only the last one. A caller who closes his side has gone.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.router.errors import PROCESS_ENDS, error_body
from infra.adapters.ids import new_id

HEAD_BYTES = 64 * 1024
"""About what a request may send beside its body: request line, headers, and the framing of a chunked body."""

HEAD_FIELDS = 256

KEEP_ALIVE_SECONDS = 75.0
"""How long a connection may wait for its next request."""

LINGER_SECONDS = 5.0
"""How long what a refused caller still sends is thrown away."""

_RESET = struct.pack("ii", 1, 0)
"""As `SO_LINGER`: a connection that is closed so breaks."""

_HOST = re.compile(rb"[0-9A-Za-z._~%!$&'()*+,;=:\[\]-]*")
_UPGRADING = frozenset({b"upgrade", b"http2-settings"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered to what is no request."""

    status: int
    code: str
    message: str


MALFORMED = Refusal(400, "invalid_http", "this is no HTTP/1.1 request, or one that could be read in two ways")
TOO_LARGE = Refusal(431, "head_too_large", f"request line, headers and framing may have {HEAD_BYTES} bytes together")
TOO_LATE = Refusal(408, "request_timeout", "the request did not arrive in time")
FAILED = Refusal(500, "internal_error", "an error of ours; it is in the log")
OVER = Refusal(503, "not_ready", PROCESS_ENDS)


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


class HttpProtocol(HttpToolsProtocol):
    """See the module."""

    config: HttpConfig
    resumed = 0
    """How often what was to be sent had grown too large, and found room again."""

    _phase = _Phase.IDLE
    _since = 0.0
    """When the phase began."""
    _beside = _fed = 0
    _deaf = False
    """Whether what comes is thrown away."""
    _wrong = MALFORMED
    _owed: Refusal | None = None
    _running: RequestResponseCycle | None = None
    _exit: "_Exit | None" = None

    # -- the connection

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._exit = _Exit(self)
        self._since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)
        self.pipeline.clear()
        self._running = self.cycle = self._exit = None  # type: ignore[assignment]  # nothing keeps the other alive

    def resume_writing(self) -> None:
        self.resumed += 1
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._fed = len(data)
        self._beside += self._fed
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._without_upgrade() + data[upgrade.args[0] :]
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
        if isinstance(self._running, _Cycle) and self._running.torn:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
            return
        if self._phase in (_Phase.IDLE, _Phase.WHOLE) and not self._deaf:
            self.transport.close()
            return
        self._deaf = True
        self._enter(_Phase.LINGERING)
        self.flow.resume_reading()
        self.transport.write_eof()

    # -- what the parser found

    def on_message_begin(self) -> None:
        self._beside = 0
        self._enter(_Phase.HEAD)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return  # `data_received` says it again, without
        self._check_head()
        super().on_headers_complete()
        self.headers = []  # fields behind the body come here, and nobody reads them
        self.cycle.__class__ = _Cycle
        self.cycle.transport = self._exit  # type: ignore[assignment]  # as much of one as a cycle uses
        self._enter(_Phase.BODY)

    def on_body(self, body: bytes) -> None:
        self._beside = max(0, self._beside - 2 * len(body))  # the framing of a chunked body grows with it
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._phase is _Phase.HEAD:
            return  # of a request that offered an upgrade
        self._beside = 0
        self._phase = _Phase.WHOLE
        super().on_message_complete()

    # -- answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._phase is _Phase.LINGERING:
            return
        self.flow.resume_reading()
        self._since = self.loop.time()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._owed is not None:
            self._say(self._owed)
        elif self._phase is _Phase.WHOLE:
            self._phase = _Phase.IDLE

    # -- inside

    def _enter(self, phase: _Phase) -> None:
        self._phase, self._since = phase, self.loop.time()

    def _check_head(self) -> None:
        """Raises `ValueError`, and leaves what to say in `_wrong`."""
        hosts = 0
        version = self.parser.get_http_version()
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if not _HOST.fullmatch(value):
                    raise ValueError("a host that is none")
            elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version != "1.1"):
                raise ValueError("a transfer coding that is not known")
        if version not in ("1.1", "1.0") or hosts > 1 or (hosts == 0 and version == "1.1"):
            raise ValueError("no request of HTTP/1.1 or 1.0")
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("a tunnel")
        perhaps = self._beside + self._fed > HEAD_BYTES  # else it cannot be
        if len(self.headers) > HEAD_FIELDS or (perhaps and self._head_size() > HEAD_BYTES):
            self._wrong = TOO_LARGE
            raise ValueError("a head that is too large")

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _without_upgrade(self) -> bytes:
        """The head that the parser stopped behind, without its offer to change protocols, for a new parser."""
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(word for word in value.split(b",") if word.strip().lower() not in _UPGRADING)
            if name not in _UPGRADING:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([*lines, b"", b""])

    def _answering_another(self) -> bool:
        """Whether the request before the one that is being read is not answered yet."""
        running = self._running
        if running is None or running.response_complete:
            return False
        return self._phase is _Phase.HEAD or running is not self.cycle

    def _refuse(self, refusal: Refusal) -> None:
        """Nothing more is read. What is being read is dropped, what was read before is answered first."""
        self._deaf = True
        if self._phase is _Phase.BODY:
            broken = self.cycle
            if self.pipeline and self.pipeline[0][0] is broken:
                self.pipeline.popleft()
            else:
                started = broken.response_started
                broken.disconnected = True
                broken.message_event.set()
                if started:
                    self.end()
                else:
                    self._say(refusal)
                return
        if self._running is not None and not self._running.response_complete:
            self._owed = refusal
        else:
            self._say(refusal)

    def _say(self, refusal: Refusal) -> None:
        body = error_body(refusal.status, refusal.code, refusal.message)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[refusal.status] + head % (len(body), new_id("req").encode()) + body)
        if self.config.observe is not None:
            self.config.observe("unknown", refusal.status, refusal.code)
        self.end()


class _Exit:
    """What a request sees of its connection: how to write, and how to end it."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, protocol: HttpProtocol) -> None:
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing
        self.close = protocol.end


class _Cycle(RequestResponseCycle):
    """A request whose answer says so if it is the last one. Where the client knows no chunks, a body of unknown length is what
    comes until the end of the connection."""

    _bare = False
    """Whether the end of the connection is the end of the body."""

    @property
    def torn(self) -> bool:
        """Whether the answer would look whole if its connection ended now, and is not."""
        return self._bare and not self.response_complete

    async def send(self, message: Any) -> None:
        if not self.response_started:
            if self.more_body:
                self.keep_alive = False
            if self.scope["http_version"] == "1.0" and all(name != b"content-length" for name, _ in message["headers"]):
                self._bare, self.chunked_encoding = True, False
        elif self._bare:
            self.expected_content_length = len(message["body"])  # uvicorn counts what has no chunks against a length
        await super().send(message)

    async def send_500_response(self) -> None:
        """The answer to a request whose application gave none."""
        task = asyncio.current_task()
        refusal = OVER if task is not None and task.cancelling() else FAILED
        body = error_body(refusal.status, refusal.code, refusal.message)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", new_id("req").encode()),
            (b"connection", b"close"),
        ]
        if refusal is OVER:
            headers.append((b"retry-after", b"1"))
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
