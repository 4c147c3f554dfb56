"""One HTTP exchange over ASGI: reading the body within its limit, and answering with our request id on everything."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from api.router.errors import RouterError
from commands.admission import Call

Headers = list[tuple[bytes, bytes]]

_SWEEP_SECONDS = 1.0


class ReadDeadline:
    """Ends the reading of bodies that take longer than `seconds`. One sweep a second for all of them: a timer for each
    would cost every request what only a stalled one needs."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._sweeping = False

    async def bound(self, read: Awaitable[bytes]) -> bytes:
        """`read`'s answer. Raises `RouterError` (``request_timeout``)."""
        task = asyncio.current_task()
        assert task is not None
        self._since[task] = time.monotonic()
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
        try:
            return await read
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise RouterError("request_timeout", f"the body did not arrive within {self._seconds:g} s") from None
        finally:
            del self._since[task]
            self._late.discard(task)

    def _sweep(self) -> None:
        old = time.monotonic() - self._seconds
        for task in [task for task, since in self._since.items() if since < old]:
            self._late.add(task)
            task.cancel()
        self._sweeping = bool(self._since)
        if self._sweeping:
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)


class Exchange:
    """`id` is the request's id, `status` what was answered (0: nothing yet), `started` whether the head has gone out;
    `id_header` another header in which clients of the protocol look for the id; `called`: what was asked for, where that is told
    as spans."""

    __slots__ = ("_headers", "_receive", "_send", "called", "id", "id_header", "started", "status")

    def __init__(
        self,
        request_id: str,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self.id = request_id
        self.status = 0
        self.started = False
        self.called: Call | None = None
        self.id_header: bytes | None = None
        self._headers: Headers = scope["headers"]
        self._receive, self._send = receive, send

    def header(self, name: bytes) -> bytes | None:
        """The value of a header; of one that came in several lines, all of them as one list, in order."""
        values = [value for key, value in self._headers if key == name]
        return b",".join(values) if values else None

    def secret(self) -> str | None:
        """The key presented as ``Authorization: Bearer`` or ``x-api-key``."""
        for key, value in self._headers:
            if key == b"authorization":
                scheme, _, token = value.partition(b" ")
                return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else None
            if key == b"x-api-key":
                return value.strip().decode("latin-1")
        return None

    async def read_body(self, limit: int) -> bytes:
        """The whole body. Raises `RouterError`: ``request_too_large``, also before the body came if its length is stated,
        ``unsupported_encoding`` if it is compressed, and ``request_timeout`` if the caller left before its end, so that half a
        request is never carried out."""
        stated = self.header(b"content-length")
        if stated is not None and int(stated) > limit:
            raise RouterError("request_too_large", f"the body is larger than {limit} bytes")
        encoding = self.header(b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            raise RouterError("unsupported_encoding", "the body must come as it is, without a content-encoding")
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RouterError("request_timeout", "the caller left before the body was whole")
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > limit:
                raise RouterError("request_too_large", f"the body is larger than {limit} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def left(self) -> None:
        """Returns when the caller has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def start(self, status: int, headers: Headers) -> None:
        self.status, self.started = status, True
        headers.append((b"x-request-id", self.id.encode()))
        if self.id_header is not None:
            headers.append((self.id_header, self.id.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def send_bytes(
        self, status: int, body: bytes, headers: Headers | None = None, kind: bytes = b"application/json"
    ) -> None:
        """A whole answer."""
        head = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *(headers or ())]
        await self.start(status, head)
        await self.write(body, more=False)

    async def send_json(self, status: int, value: Any) -> None:
        await self.send_bytes(status, msgspec.json.encode(value))
