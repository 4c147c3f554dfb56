"""One request of a connection, and its answer, as ASGI tells them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from api.router.errors import PROCESS_ENDS, error_body
from infra.adapters.ids import new_id

App = Callable[[Any, Any, Any], Awaitable[None]]
Message = MutableMapping[str, Any]

HIGH_WATER = 64 * 1024
"""Bytes of a body that wait for the application before nothing more is read."""

_BODILESS = frozenset({204, 304})

_PHRASES: Mapping[int, str] = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, "").encode()) for status in range(100, 600)
}

UNFINISHED = "the application did not answer to the end"
"""Logged where it should have."""

_logger = logging.getLogger("tollhouse.http")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered where there is no request, or no answer of the application's."""

    status: int
    code: str
    message: str

    def answer(self) -> tuple[bytes, bytes]:
        """Head and body of an answer that ends its connection."""
        body = error_body(self.status, self.code, self.message)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", new_id("req").encode()),
            (b"connection", b"close"),
        ]
        if self.status == 503:
            headers.append((b"retry-after", b"1"))
        return _head(self.status, headers), body


FAILED = Refusal(500, "internal_error", "an error of ours; it is in the log")
OVER = Refusal(503, "not_ready", PROCESS_ENDS)


class Line(Protocol):
    """The connection that a request came on."""

    transport: asyncio.Transport
    room: asyncio.Event
    """Set while something can be added to what is to be sent."""

    def listen(self) -> None:
        """What comes is read."""

    def wait(self) -> None:
        """Nothing is read for now."""

    def answered(self) -> None:
        """Everything was said to the request whose turn it was."""

    def end(self) -> None:
        """Ends the connection once everything is sent."""


class Cycle:
    """`keep_alive`: whether another request may follow on the connection; `expects`: whether the caller waits for a word before
    the body; `more_body`: whether the request is still coming; `started`, `complete`: whether anything, and everything, of the
    answer is written. `disconnected`: the caller has gone, and nothing is written any more."""

    __slots__ = (
        "_bare",
        "_chunked",
        "_expects",
        "_held",
        "_left",
        "_line",
        "_mute",
        "_news",
        "_parts",
        "_scope",
        "_size",
        "_told",
        "complete",
        "disconnected",
        "keep_alive",
        "more_body",
        "started",
    )

    def __init__(self, line: Line, scope: dict[str, Any], keep_alive: bool, expects: bool) -> None:
        self._line, self._scope = line, scope
        self.keep_alive, self._expects = keep_alive, expects
        self._parts: list[bytes] = []
        self._size = 0
        self._news: asyncio.Event | None = None
        """Made once somebody waits: few do."""
        self.more_body = True
        self._told = False
        """Whether the application knows the end of the body."""
        self.disconnected = self.started = self.complete = False
        self._chunked = self._mute = False
        self._bare = False
        """Whether the end of the connection is the end of the body."""
        self._left = 0
        """What a body of stated length still has to have."""
        self._held = b""
        """A head that goes out with the beginning of its body: a write each would cost both sides a call into the kernel more."""

    @property
    def torn(self) -> bool:
        """Whether the answer would look whole if its connection ended now, and is not."""
        return self._bare and not self.complete

    # -- the connection says

    def feed(self, body: bytes) -> None:
        self._parts.append(body)
        self._size += len(body)
        if self._size > HIGH_WATER:
            self._line.wait()
        self._wake()

    def whole(self) -> None:
        """The request is."""
        self.more_body = False
        self._wake()

    def leave(self) -> None:
        """The caller has gone, or what it still says is no request."""
        self.disconnected = True
        self._wake()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    # -- the application says

    async def run(self, app: App) -> None:
        """Lets `app` answer. What it does not say at all is said here; an answer that it does not end breaks the connection."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:  # the drain is over; the server awaits nothing more of this task
            self._give_up(OVER)
        except Exception:
            _logger.exception("the application failed")
            self._give_up(FAILED)
        else:
            if not self.complete and not self.disconnected:
                _logger.error(UNFINISHED)
                self._give_up(FAILED)

    def _give_up(self, refusal: Refusal) -> None:
        if self.complete:
            return  # the connection may be another request's by now
        if not self.started and not self.disconnected:
            head, body = refusal.answer()
            self._write(head if self._scope["method"] == "HEAD" else head + body)
            self.complete = True
            self._wake()
        self._line.end()

    async def receive(self) -> Message:
        """ASGI's ``http.request`` or ``http.disconnect``: the latter also once everything is answered."""
        if self._expects and not self.disconnected and not self._line.transport.is_closing():
            self._line.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._expects = False
        while not self._parts and (self.more_body or self._told) and not self.disconnected and not self.complete:
            self._line.listen()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        parts, self._parts, self._size = self._parts, [], 0
        self._told = not self.more_body
        return {
            "type": "http.request",
            "body": parts[0] if len(parts) == 1 else b"".join(parts),
            "more_body": self.more_body,
        }

    async def send(self, message: Message) -> None:
        """ASGI's ``http.response.start``, then ``http.response.body``. Waits for room first."""
        if not self._line.room.is_set():
            await self._line.room.wait()
        if self.disconnected:
            return
        if self.complete:
            raise RuntimeError("the answer had ended")
        if not self.started and not self._held:
            self._begin(message["status"], message.get("headers", ()))
        elif message["type"] != "http.response.body":
            raise RuntimeError("the answer had begun")
        else:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._expects = False
        if self.more_body:
            self.keep_alive = False
        head = list(headers)
        stated = None
        for name, value in head:
            if name == b"content-length":
                stated = int(value)
        self._mute = self._scope["method"] == "HEAD" or status in _BODILESS
        self._left = 0 if self._mute or stated is None else stated
        open_ended = stated is None and not self._mute
        self._bare = open_ended and self._scope["http_version"] == "1.0"
        self._chunked = open_ended and not self._bare
        if self._chunked:
            head.append((b"transfer-encoding", b"chunked"))
        if not self.keep_alive:
            head.append((b"connection", b"close"))
        if self._left:
            self._held = _head(status, head)
        else:
            self._write(_head(status, head))

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if self._mute:
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif not self._bare:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer has another length than it said")
        if body:
            self._write(self._held + body)
            self._held = b""
        if more:
            return
        self.complete = True
        self._wake()
        if not self.keep_alive:
            self._line.end()
        self._line.answered()

    def _write(self, data: bytes) -> None:
        self.started = True
        self._line.transport.write(data)


def _head(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Raises `RuntimeError` if a header would be more than one."""
    head = b"".join([_STATUS_LINES[status], *[b"%b: %b\r\n" % header for header in headers], b"\r\n"])
    if not head.count(b"\n") == head.count(b"\r") == len(headers) + 2 or b"\0" in head:
        raise RuntimeError("a header with control characters")
    return head
