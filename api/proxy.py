"""Passes a request on to another process of the same installation, unchanged, and its answer back as it comes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from api.router.errors import STATUS, RouterError, error_body
from api.router.exchange import Exchange, Headers
from commands.ports import UpstreamResponse
from domain.errors import UpstreamFailed

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"host"}
)
_KEPT = _HOP_BY_HOP | {b"accept-encoding"}
"""What is not passed on of a request."""

_AS_IT_IS = b"accept-encoding: identity\r\n"
"""A compressed answer would be refused: nobody here opens it."""

_MAX_BODY = 4 * 1024 * 1024
_PATIENCE = 10.0
_RETRY_SECONDS = 0.05


class Sender(Protocol):
    """An `Upstream` that can also send other methods."""

    async def send(
        self, url: str, path: str, headers: bytes, body: bytes, timeout: float, *, method: bytes, stream: bool
    ) -> UpstreamResponse: ...


class Proxy:
    """`url` is where the other process listens. `timeout` seconds bound one exchange (event streams are reopened by clients)."""

    def __init__(self, sender: Sender, url: str, timeout: float = 3600.0) -> None:
        self._sender, self._url, self._timeout = sender, url, timeout
        self._following: set[asyncio.Task[None]] = set()
        self._ending = False

    def end(self) -> None:
        """Event streams end, now and from now on: they never do by themselves."""
        self._ending = True
        for gone in self._following:
            gone.cancel()

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
        request_id: str,
    ) -> None:
        exchange = Exchange(request_id, scope, receive, send)
        try:
            body = await exchange.read_body(_MAX_BODY)
        except RouterError as error:
            status = STATUS[error.code]
            await exchange.send_bytes(status, error_body(status, error.code, error.message))
            return
        path = scope["raw_path"].decode("latin-1")
        if query := scope["query_string"].decode("latin-1"):
            path += f"?{query}"
        headers = b"".join(b"%b: %b\r\n" % (k, v) for k, v in scope["headers"] if k not in _KEPT) + _AS_IT_IS
        method = scope["method"].encode()
        try:
            response = await self._sent(path, headers, body, method)
        except UpstreamFailed as failure:
            message = f"the read side is not ready: {failure.message}"
            await exchange.send_bytes(503, error_body(503, "not_ready", message), [(b"retry-after", b"1")])
            return
        if method == b"HEAD":  # its answer states the length of a body that never comes
            response.close()
            await exchange.start(response.status, _passed(response))
            await exchange.write(b"", more=False)
            return
        await self._relay(exchange, response)

    async def _sent(self, path: str, headers: bytes, body: bytes, method: bytes) -> UpstreamResponse:
        """What was surely not sent is tried again while the other process starts."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return await self._sender.send(
                    self._url, path, headers, body, self._timeout, method=method, stream=True
                )
            except UpstreamFailed as failure:
                if failure.sent or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    async def _relay(self, exchange: Exchange, response: UpstreamResponse) -> None:
        await exchange.start(response.status, _passed(response))
        gone = asyncio.get_running_loop().create_task(exchange.left())
        gone.add_done_callback(lambda _: response.close())
        follows = _follows(response)
        if follows:
            self._following.add(gone)
            if self._ending:
                gone.cancel()
        try:
            while data := await response.chunk():
                await exchange.write(data, more=True)
            await exchange.write(b"", more=False)
        except UpstreamFailed:
            if follows and self._ending:
                await exchange.write(b"", more=False)
            elif not gone.done():
                raise  # the server cuts the connection: a torn answer must not look whole
        finally:
            self._following.discard(gone)
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


def _follows(response: UpstreamResponse) -> bool:
    """Whether it is a stream of events."""
    return any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in response.headers)


def _passed(response: UpstreamResponse) -> Headers:
    """The headers of an answer, but for those about the other connection, and its id: the request has ours."""
    headers = [(k, v) for k, v in response.headers if k not in _HOP_BY_HOP or k == b"content-length"]
    return [(k, v) for k, v in headers if k != b"x-request-id"]
