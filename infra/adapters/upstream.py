"""`Upstream` over HTTP/1.1: pooled keep-alive connections, one asyncio protocol each, parsed by httptools.

What the request path needs and no more: no redirects, no proxies, no cookies, no compression, no retry. A connection
that the peer closed while idle is never used; one that breaks after the first byte of a request was written fails that
request as `sent`, because the backend may have seen it.
"""

import asyncio
import ssl
from collections import deque
from typing import cast
from urllib.parse import SplitResult, urlsplit

import httptools

from domain.errors import UpstreamFailed
from infra.adapters.address_guard import AddressGuard
from infra.adapters.patience import Patience

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 4.0
"""Idle connections are closed before common servers do it (uvicorn: 5 s), so that a request seldom meets a stale one."""

MAX_BODY = 64 * 1024 * 1024
_HIGH_WATER = 256 * 1024
_SWEEP_SECONDS = 0.25


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

    def __init__(self, connection: "_Connection") -> None:
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


class _Connection(asyncio.Protocol):
    """One connection; at most one exchange at a time. `answered` resolves with the whole answer, or with its head if
    it is an event stream."""

    __slots__ = (
        "_framed",
        "_keep",
        "_parser",
        "_paused",
        "_pool",
        "_response",
        "answered",
        "idle_since",
        "patience",
        "transport",
    )

    def __init__(self, pool: "_Pool") -> None:
        self._pool = pool
        self.transport: asyncio.Transport | None = None
        self.answered: asyncio.Future[Response] | None = None
        self._response: Response | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._framed = self._keep = self._paused = False
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
        self._framed = False
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
            self.abort(UpstreamFailed(f"the backend's answer is not HTTP: {error}", sent=True))

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
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif name == b"content-type" and value.startswith(b"text/event-stream"):
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
        self._response.status = status
        self._keep = self._parser.should_keep_alive()
        if self._response.streamed and not self.answered.done():
            self.answered.set_result(self._response)

    def on_body(self, data: bytes) -> None:
        assert self._response is not None
        self.patience.heard = True
        size = self._response.feed(data)
        if self._response.streamed:
            if size > _HIGH_WATER and not self._paused and self.transport is not None:
                self._paused = True
                self.transport.pause_reading()
        elif size > MAX_BODY:
            self.abort(UpstreamFailed(f"the backend's answer is larger than {MAX_BODY} bytes", sent=True))

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._response is None or not self._response.status:
            return
        self._finish(None)

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


class _Pool:
    """The connections to one address."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: SplitResult,
        tls: ssl.SSLContext | None,
        guard: AddressGuard | None,
    ) -> None:
        self.loop, self._address, self._tls, self._guard = loop, address, tls, guard
        self._idle: deque[_Connection] = deque()
        self.busy: set[_Connection] = set()

    async def take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if self._address.scheme == "unix":
                    if self._guard is not None:
                        raise UpstreamFailed("a file is one that may not be connected to", sent=False)
                    _, protocol = await self.loop.create_unix_connection(lambda: _Connection(self), self._address.path)
                else:
                    protocol = await self._connect(self._address.hostname or "")
        except (OSError, TimeoutError, UnicodeError) as error:  # the last: no resolver takes such a name
            raise UpstreamFailed(f"cannot connect: {error or 'timed out'}", sent=False) from error
        if protocol.transport is None or protocol.transport.is_closing():
            raise UpstreamFailed("cannot connect: the backend closed the connection at once", sent=False)
        return protocol

    async def _connect(self, host: str) -> _Connection:
        """To the first address of `host` that answers. Raises the last one's error."""
        port = self._address.port or (443 if self._tls else 80)
        name = host if self._tls else None
        last: OSError = OSError("no address")
        for address in await self._guard.addresses(host, port) if self._guard else (host,):
            try:
                _, protocol = await self.loop.create_connection(
                    lambda: _Connection(self), address, port, ssl=self._tls, server_hostname=name
                )
            except OSError as error:
                last = error
            else:
                return protocol
        raise last

    def release(self, connection: _Connection) -> None:
        connection.idle_since = self.loop.time()
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        self.busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self, now: float) -> None:
        """Ends exchanges past their deadline and connections idle too long."""
        over = [(c, why) for c in self.busy if (why := c.patience.over(now, held_up=c.held_up))]
        for connection, why in over:
            connection.abort(UpstreamFailed(why, sent=True, code="upstream_timeout"))
        while self._idle and self._idle[0].idle_since < now - IDLE_SECONDS:
            connection = self._idle.popleft()
            if connection.transport is not None:
                connection.transport.close()

    def close(self) -> None:
        for connection in [*self.busy, *self._idle]:
            connection.abort()


class HttpUpstream:
    """See `commands.ports.Upstream`. Lives on one event loop; `close` ends every connection. `guard` says which addresses may be
    connected to (None: any)."""

    def __init__(self, guard: AddressGuard | None = None) -> None:
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._pools: dict[str, tuple[_Pool, bytes, str]] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def send(
        self,
        url: str,
        path: str,
        headers: bytes,
        body: bytes,
        timeout: float,
        first_byte: float | None = None,
        idle: float | None = None,
        method: bytes = b"POST",
        stream: bool = False,
    ) -> Response:
        """See the port. `stream`: the answer is read chunk by chunk whatever its type."""
        known = self._pools.get(url)
        if known is None:
            known = self._pools[url] = self._pool(url)
        pool, host, base = known
        began = self._loop.time()
        connection = await pool.take()
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%bcontent-length: %d\r\n\r\n" % (
            method,
            (base + path).encode(),
            host,
            headers,
            len(body),
        )
        connection.patience.begin(began, timeout, first_byte, idle)
        return await connection.send(head + body, stream)

    async def status(self, url: str, path: str, headers: bytes, timeout: float) -> int:
        """See `commands.backend_watch.Checked`."""
        response = await self.send(url, path, headers, b"", timeout, method=b"GET", stream=True)
        response.close()
        return response.status

    def close(self) -> None:
        self._sweeper.cancel()
        for pool, _, _ in self._pools.values():
            pool.close()

    def _pool(self, url: str) -> tuple[_Pool, bytes, str]:
        address = urlsplit(url)
        tls = None
        if address.scheme == "https":
            tls = self._tls = self._tls or ssl.create_default_context()
        base = "" if address.scheme == "unix" else address.path.rstrip("/")
        return (
            _Pool(self._loop, address, tls, self._guard),
            (address.netloc.rpartition("@")[2] or "localhost").encode(),
            base,
        )

    def _sweep(self) -> None:
        now = self._loop.time()
        for pool, _, _ in self._pools.values():
            pool.sweep(now)
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)
