"""One HTTP exchange over ASGI: reading the body within its limit, and answering with our request id on everything."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from api.router.errors import RouterError

Headers = list[tuple[bytes, bytes]]


class Exchange:
    """`id` is the request's id, `status` what was answered (0: nothing yet), `started` whether the head has gone out."""

    __slots__ = ("_headers", "_receive", "_send", "id", "started", "status")

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
        self._headers: Headers = scope["headers"]
        self._receive, self._send = receive, send

    def header(self, name: bytes) -> bytes | None:
        for key, value in self._headers:
            if key == name:
                return value
        return None

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
        """The whole body. Raises `RouterError` (``request_too_large``), also before the body came if its length is stated."""
        stated = self.header(b"content-length")
        if stated is not None and int(stated) > limit:
            raise RouterError("request_too_large", f"the body is larger than {limit} bytes")
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await self._receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise RouterError("request_too_large", f"the body is larger than {limit} bytes")
        return b"".join(parts)

    async def left(self) -> None:
        """Returns when the caller has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def start(self, status: int, headers: Headers) -> None:
        self.status, self.started = status, True
        headers.append((b"x-request-id", self.id.encode()))
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
