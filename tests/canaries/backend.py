"""A backend that says too much: whatever it answers, it repeats what it was told, credential and all.

How it answers is the name of the model.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.listening import listening

WAYS = (
    "served", "usageless", "refused", "unauthorized", "failed", "gone", "torn", "silent", "chatter", "compressed", "broken",
)  # fmt: skip


class Parrot:
    """`answer` is in every answer."""

    def __init__(self, answer: str) -> None:
        self.answer, self.url = answer, ""
        self.heads: list[bytes] = []
        """Of the requests that came."""

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                head = self.heads[-1].decode("latin-1")
                length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                await self._say(body, f"{self.answer} {head} {json.dumps(body)}", reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _say(
        self, body: dict[str, Any], said: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        error = json.dumps({"error": {"message": said, "type": "x", "param": None, "code": "x"}}).encode()
        match body["model"]:
            case "refused":
                await _send(writer, 400, error)
            case "unauthorized":
                await _send(writer, 401, error)
            case "failed":
                await _send(writer, 500, error)
            case "gone":
                writer.close()
            case "silent":
                await reader.read()
            case "chatter":
                writer.write(said.encode() + b"\r\n\r\n")
            case "broken":
                await _send(writer, 200, b"{" + error)
            case "compressed":
                await _send(writer, 200, gzip.compress(error), b"content-encoding: gzip\r\n")
            case way if body.get("stream"):
                await self._stream(way, said, writer)
            case way:
                await self._plain(way, said, writer)

    async def _plain(self, way: str, said: str, writer: asyncio.StreamWriter) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        doc = {"id": "x", "choices": [choice]} | ({} if way == "usageless" else {"usage": usage})
        data = json.dumps(doc).encode()
        if way == "torn":
            writer.write(_head(200, b"application/json", len(data)) + data[:-10])
            raise ConnectionResetError
        await _send(writer, 200, data)

    async def _stream(self, way: str, said: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        choice = {"index": 0, "delta": {"content": said}, "finish_reason": None}
        for _ in range(3):
            writer.write(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
        if way == "torn":
            raise ConnectionResetError
        if way != "usageless":
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            writer.write(b"data: %b\n\n" % json.dumps({"choices": [], "usage": usage}).encode())
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def parrot(answer: str) -> AsyncIterator[Parrot]:
    """One on a free port of this machine."""
    made = Parrot(answer)
    async with listening(made.session) as made.url:
        yield made


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: bytes = b"") -> None:
    writer.write(_head(status, b"application/json", len(body), headers) + body)
    await writer.drain()


def _head(status: int, kind: bytes, length: int, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d -\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n" % (status, kind, length, headers)
