"""One connection to a backend, and the answer that comes on it: an asyncio protocol, parsed by httptools.

What a backend says is bounded in every part: its head, a plain body, and of a stream what waits for its reader. It is taken as
it comes: nobody asked for it compressed, and what would come out of it is bounded by nothing.
"""

import asyncio
from typing import NoReturn, Protocol, cast

import httptools

from domain.errors import UpstreamFailed
from infra.adapters.patience import Patience

MAX_BODY = 64 * 1024 * 1024
MAX_HEAD = 64 * 1024
"""Bytes of header names and values of an answer, with those of interim ones before it."""

_HIGH_WATER = 256 * 1024

_AS_IT_IS = {b"content-encoding": b"identity", b"transfer-encoding": b"chunked"}
"""What a body that is not compressed has to say, where it says something."""


class Pool(Protocol):
    """Where a connection belongs."""

    loop: asyncio.AbstractEventLoop
    busy: "set[Connection]"

    def release(self, connection: "Connection") -> None:
        """It may take another request."""

    def forget(self, connection: "Connection") -> None:
        """It has ended."""


class Response:
    """See `commands.ports.UpstreamResponse`."""

    __slots__ = (
        "_connection",
        "_ended",
        "_error",
        "_parts",
        "_size",
        "_waiter",
        "body",
        "headers",
        "status",
        "streamed",
    )

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.streamed = False
        self._connection = connection
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._error: UpstreamFailed | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def chunk(self) -> bytes:
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._connection.resume()
        return data

    def close(self) -> None:
        if not self._ended:
            self._connection.abort()

    def feed(self, data: bytes) -> int:
        self._parts.append(data)
        self._size += len(data)
        self._wake()
        return self._size

    def end(self, error: UpstreamFailed | None = None) -> None:
        self._ended, self._error = True, error
        if not self.streamed:
            self.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One connection; at most one exchange at a time. `answered` resolves with the whole answer, or with its head if
    it is an event stream."""

    __slots__ = (
        "_framed",
        "_head",
        "_keep",
        "_muted",
        "_parser",
        "_paused",
        "_pool",
        "_response",
        "_wrong",
        "answered",
        "idle_since",
        "patience",
        "transport",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.transport: asyncio.Transport | None = None
        self.answered: asyncio.Future[Response] | None = None
        self._response: Response | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._framed = self._keep = self._paused = self._muted = False
        self._head = 0
        self._wrong: UpstreamFailed | None = None
        self.idle_since = 0.0
        self.patience = Patience()

    @property
    def held_up(self) -> bool:
        """Whether nothing more is received, because what was is not taken yet."""
        return self._paused

    def send(self, data: bytes, stream: bool) -> "asyncio.Future[Response]":
        assert self.transport is not None
        self.answered = self._pool.loop.create_future()
        self._response = Response(self)
        self._response.streamed = stream
        self._parser = httptools.HttpResponseParser(self)
        self._framed = self._muted = False
        self._head = 0
        self._pool.busy.add(self)
        self.transport.write(data)
        return self.answered

    def abort(self, error: UpstreamFailed | None = None) -> None:
        """Ends the exchange and the connection."""
        if self.transport is not None:
            self.transport.abort()
        self._finish(error or UpstreamFailed("the stream was closed", sent=True))

    def resume(self) -> None:
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's

    def data_received(self, data: bytes) -> None:
        if self._parser is None:  # bytes nobody asked for: this connection cannot be trusted
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.abort(self._wrong or UpstreamFailed(f"the backend's answer is not HTTP: {error}", sent=True))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._pool.forget(self)
        response = self._response
        if response is None:
            return
        if exc is None and response.status and not self._framed:
            self.on_message_complete()  # HTTP/1.0 style: the end of the connection is the end of the body
        else:
            self._finish(UpstreamFailed(f"the backend closed the connection{f': {exc}' if exc else ''}", sent=True))

    # -- httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._response is not None
        self._head += len(name) + len(value)
        if self._head > MAX_HEAD:
            self._refuse(f"the head of the backend's answer is larger than {MAX_HEAD} bytes")
        if self._response.status:
            return  # what comes behind a body is no header
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif name == b"content-type" and value[:17].lower() == b"text/event-stream":
            assert self._parser is not None
            # a refusal is read whole, whatever it is written as
            self._response.streamed = self._response.streamed or self._parser.get_status_code() == 200
        self._response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._response is not None
        assert self._parser is not None
        assert self.answered is not None
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer
            self._response.headers.clear()
            return
        if any(value.lower() != _AS_IT_IS[name] for name, value in self._response.headers if name in _AS_IT_IS):
            if 200 <= status < 300:
                self._refuse("the backend's answer is compressed, which nobody asked for")
            self._muted = True  # a refusal is one without its words, too
        self._response.status = status
        self._keep = self._parser.should_keep_alive()
        if self._response.streamed and not self.answered.done():
            self.answered.set_result(self._response)

    def on_body(self, data: bytes) -> None:
        assert self._response is not None
        self.patience.heard = True
        if self._muted:
            return
        size = self._response.feed(data)
        if self._response.streamed:
            if size > _HIGH_WATER and not self._paused and self.transport is not None:
                self._paused = True
                self.transport.pause_reading()
        elif size > MAX_BODY:
            self._refuse(f"the backend's answer is larger than {MAX_BODY} bytes")

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._response is None or not self._response.status:
            return
        self._finish(None)

    def _refuse(self, why: str) -> NoReturn:
        """Ends the parser, which ends the exchange (`data_received`)."""
        self._wrong = UpstreamFailed(why, sent=True)
        raise ValueError(why)

    def _finish(self, error: UpstreamFailed | None) -> None:
        response, answered = self._response, self.answered
        self._response = self.answered = self._parser = None
        if response is None or answered is None:
            return
        response.end(error)
        self._pool.busy.discard(self)
        if not answered.done():
            if error is None:
                answered.set_result(response)
            else:
                answered.set_exception(error)
        if error is None and self._keep and self._clean():
            self.resume()
            self._pool.release(self)
        elif self.transport is not None:
            self.transport.abort()  # closing would wait until the rest of the request is sent

    def _clean(self) -> bool:
        """Whether another request can follow: an answer may come before all of its request was sent."""
        return (
            self.transport is not None
            and not self.transport.is_closing()
            and not self.transport.get_write_buffer_size()
        )
