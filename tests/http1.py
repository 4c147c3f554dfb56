"""A small HTTP/1.1 client on asyncio streams: keep-alive, and answers that can be read piece by piece or left half way.

No library stands between a test and the bytes: a torn answer is `Cut`, never a shorter answer, and nothing is retried.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

_LIMIT = 1 << 24


class Cut(Exception):
    """The answer did not come to its end. `headers` and `body` are what did come."""

    def __init__(self, why: str, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(why)
        self.headers, self.body = headers, body


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `began` is the monotonic time before its request's first byte was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    began: float

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["x-request-id"]

    @property
    def code(self) -> str | None:
        """The stable code of an error, in OpenAI's shape or a problem document's."""
        if self.status < 400:
            return None
        doc = self.json()
        found: str | None = doc["error"]["code"] if "error" in doc else doc["code"]
        return found

    @property
    def fields(self) -> list[str]:
        """The fields that a problem document names."""
        return [error["field"] for error in self.json().get("errors", [])]

    def events(self) -> list[str]:
        """The data of each server-sent event."""
        return [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]


class Opened:
    """An answer whose head has come. `piece` reads on; `leave` goes away without reading to the end."""

    def __init__(self, http: "Http", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, began: float) -> None:
        self._http, self._reader, self._writer = http, reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.began = began
        self._left: int | None = None
        self._ended = False

    async def head(self) -> None:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ", 2)[1])
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        if self.status in (204, 304):
            self._left = 0
        elif "chunked" not in self.headers.get("transfer-encoding", ""):
            self._left = int(self.headers["content-length"])

    async def piece(self) -> bytes:
        """What comes next of the body; empty at its end. Raises `Cut`."""
        if self._ended:
            return b""
        try:
            if self._left is None:
                size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
                data = (await self._reader.readexactly(size + 2))[:-2]
            else:
                data = await self._reader.readexactly(self._left)
                self._left = 0
        except (OSError, asyncio.IncompleteReadError) as error:
            self.leave()
            raise Cut(repr(error), self.headers, b"") from None
        if not data:
            self._ended = True
            self._http.keep(self._reader, self._writer, self.headers)
        return data

    async def rest(self) -> bytes:
        """What comes of the body until its end. Raises `Cut`."""
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    def leave(self) -> None:
        """Closes the connection, as a caller who has gone."""
        self._ended = True
        self._writer.close()


class Http:
    """A client of one server, with as many connections as there are calls under way. `close` ends those that idle."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or 80
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> "Http":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float = 60.0,
    ) -> Answer:
        """Sends a request (`body`: bytes as they are, anything else as JSON) and reads its answer. Raises `Cut`."""
        parts: list[bytes] = []
        opened: Opened | None = None
        try:
            async with asyncio.timeout(seconds):
                opened = await self.open(method, path, body, headers)
                while piece := await opened.piece():
                    parts.append(piece)
        except Cut as cut:
            raise Cut(str(cut), cut.headers, b"".join(parts)) from None
        except TimeoutError:
            if opened is not None:
                opened.leave()
            raise Cut(f"not answered within {seconds} s", {}, b"".join(parts)) from None
        except asyncio.CancelledError:
            if opened is not None:
                opened.leave()
            raise
        return Answer(opened.status, opened.headers, b"".join(parts), opened.began)

    async def open(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Opened:
        """Sends a request and reads its answer's head. Raises `Cut`."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = {"host": f"{self._host}:{self._port}", "content-type": "application/json", "content-length": len(data)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (head | dict(headers or {})).items())
        message = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + data
        began = time.monotonic()
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await self._take()
            writer.write(message)
            opened = Opened(self, reader, writer, began)
            await opened.head()
        except (OSError, asyncio.IncompleteReadError) as error:
            if writer is not None:
                writer.close()
            raise Cut(repr(error), {}, b"") from None
        except asyncio.CancelledError:
            if writer is not None:
                writer.close()
            raise
        return opened

    def keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Mapping[str, str]) -> None:
        """Takes a connection back after a whole answer."""
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        for _, writer in idle:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in idle), return_exceptions=True)

    async def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port, limit=_LIMIT)
