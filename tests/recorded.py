"""A backend that answers with recorded bytes, in the test's own event loop, and remembers what it was asked."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.listening import listening


@dataclass(slots=True)
class Asked:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Recorded:
    """Answers every request with `status` and `answer`: an event stream if `streams`, in pieces of `step` bytes."""

    url: str = ""
    status: int = 200
    answer: bytes = b"{}"
    streams: bool = False
    step: int = 7
    asked: list[Asked] = field(default_factory=list)

    def says(self, answer: bytes, *, status: int = 200, streams: bool = False) -> None:
        self.answer, self.status, self.streams = answer, status, streams

    @property
    def last(self) -> Asked:
        return self.asked[-1]

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await self._one(reader, writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"null")
        self.asked.append(Asked(first.split()[1], headers, body))
        if not self.streams:
            head = f"HTTP/1.1 {self.status} -\r\ncontent-type: application/json\r\ncontent-length: {len(self.answer)}\r\n\r\n"
            writer.write(head.encode() + self.answer)
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for at in range(0, len(self.answer), self.step):
            piece = self.answer[at : at + self.step]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@contextlib.asynccontextmanager
async def recorded() -> AsyncIterator[Recorded]:
    """One on a free port of this machine."""
    made = Recorded()
    async with listening(made.session) as made.url:
        yield made
