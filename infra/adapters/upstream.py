"""`Upstream` over HTTP/1.1: pooled keep-alive connections (`upstream_connection`).

What the request path needs and no more: no redirects, no proxies, no cookies, no compression, no retry. A connection
that the peer closed while idle is never used; one that breaks after the first byte of a request was written fails that
request as `sent`, because the backend may have seen it. Errors say what is wrong and not where: callers are told them.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from urllib.parse import SplitResult, urlsplit

from commands.ports import NotSent
from domain.errors import UpstreamFailed
from infra.adapters.address_guard import AddressGuard
from infra.adapters.upstream_connection import Connection, Response

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 4.0
"""Idle connections are closed before common servers do it (uvicorn: 5 s), so that a request seldom meets a stale one."""

_SWEEP_SECONDS = 0.25


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
        self._idle: deque[Connection] = deque()
        self.busy: set[Connection] = set()

    async def take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if self._address.scheme == "unix":
                    if self._guard is not None:
                        raise UpstreamFailed("a file is one that may not be connected to", sent=False)
                    _, protocol = await self.loop.create_unix_connection(lambda: Connection(self), self._address.path)
                else:
                    protocol = await self._connect(self._address.hostname or "")
        except (OSError, TimeoutError, UnicodeError) as error:  # the last: no resolver takes such a name
            raise UpstreamFailed(f"cannot connect: {_why(error)}", sent=False) from error
        if protocol.transport is None or protocol.transport.is_closing():
            raise UpstreamFailed("cannot connect: the backend closed the connection at once", sent=False)
        return protocol

    async def _connect(self, host: str) -> Connection:
        """To the first address of `host` that answers, each in its share of the time. Raises the last one's error."""
        port = self._address.port or (443 if self._tls else 80)
        name = host if self._tls else None
        last: OSError = OSError("no address")
        addresses = await self._guard.addresses(host, port) if self._guard else (host,)
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_SECONDS / len(addresses)):
                    _, protocol = await self.loop.create_connection(
                        lambda: Connection(self), address, port, ssl=self._tls, server_hostname=name
                    )
            except OSError as error:
                last = error
            else:
                return protocol
        raise last

    def release(self, connection: Connection) -> None:
        connection.idle_since = self.loop.time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
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


def _why(error: Exception) -> str:
    """What is wrong, without the address that a message of the system's would have."""
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "its name is not known"
    if isinstance(error, TimeoutError):
        return "timed out"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no address"


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
        try:
            connection = await pool.take()
        except asyncio.CancelledError:
            raise NotSent from None
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%bcontent-length: %d\r\n\r\n" % (
            method,
            (base + path).encode(),
            host,
            headers,
            len(body),
        )
        connection.patience.begin(began, timeout, first_byte, idle)
        answered = connection.send(head + body, stream)
        try:
            return await answered
        except asyncio.CancelledError:
            if answered.cancelled():
                connection.abort()
            elif answered.exception() is None:  # it came all the same, and the connection may be another call's by now
                answered.result().close()
            raise

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
