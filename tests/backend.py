"""A model backend under a test's control, in the test's own event loop: it counts what reaches it and waits where told to.

How a model behaves is set by its upstream name. What it received and what it served are the truth that the books are
compared with.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.listening import listening


@dataclass(slots=True)
class Received:
    """One request as it arrived."""

    id: str
    model: str
    path: str
    headers: Mapping[str, str]
    body: Any


Failing = Literal["stall", "drop", "drop behind the head", "error behind the head"]


@dataclass
class Backend:
    """Answers chat completions with exactly the output cap, in one piece or word by word.

    `word` is what its answers are made of. `refusing`: models answered with a status and no usage. `failing`: models that are
    never answered, whose connection is closed at once or behind the head, or whose answer is an error behind the head of a
    good one. `cutting`: models whose connection is closed half way. `gates`: models that wait, before the last byte of their
    answer, until the event is set.
    """

    url: str = ""
    word: str = "ok"
    received: list[Received] = field(default_factory=list)
    served: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Request id to (prompt tokens, completion tokens), written before the last byte leaves."""
    left: list[str] = field(default_factory=list)
    """Ids of requests whose caller went away before the end."""
    refusing: dict[str, int] = field(default_factory=dict)
    failing: dict[str, Failing] = field(default_factory=dict)
    too_long: set[str] = field(default_factory=set)
    """Models that find every request too long."""
    cutting: set[str] = field(default_factory=set)
    share: float = 1.0
    """Of the requests that are refused, failed or cut, where any are to be."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    claiming: dict[str, int] = field(default_factory=dict)
    """Models whose reports say so many prompt tokens, whatever was sent."""
    health: int = 200
    """The status of an answer to a GET."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Of each GET its path and what it was authorized by."""
    _dice: random.Random = field(default_factory=lambda: random.Random(7))
    events: int = 0
    """Events of streams that found room in a connection."""

    @property
    def ids(self) -> Counter[str]:
        """How often each request id arrived."""
        return Counter(request.id for request in self.received)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                await self._one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if first.startswith("GET "):
            self.asked.append((first.split()[1], headers.get("authorization", "")))
            await _send(writer, self.health, b"{}")
            return
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
        request = Received(headers.get("x-request-id", ""), body.get("model", ""), first.split()[1], headers, body)
        self.received.append(request)
        struck = self._dice.random() < self.share
        if struck and (status := self.refusing.get(request.model)):
            refusal = {"error": {"message": "refused", "type": "server_error", "param": None, "code": "refused"}}
            await _send(writer, status, json.dumps(refusal).encode())
            return
        if request.model in self.too_long:
            error = {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}
            await _send(writer, 400, json.dumps({"error": {"param": None, **error}}).encode())
            return
        if struck and (way := self.failing.get(request.model)):
            await self._fail(way, bool(body.get("stream")), writer)
            return
        words = sum(len(str(message["content"]).split()) for message in body["messages"])
        prompt = self.claiming.get(request.model, words)
        tokens = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
        if body.get("stream"):
            await self._stream(request, usage, reader, writer, struck)
        else:
            await self._plain(request, usage, writer, struck)

    async def _fail(self, way: Failing, stream: bool, writer: asyncio.StreamWriter) -> None:
        if way == "stall":
            await asyncio.Event().wait()
        if way == "drop":
            raise ConnectionResetError
        error = json.dumps(
            {"error": {"message": "broken", "type": "server_error", "param": None, "code": None}}
        ).encode()
        if way == "error behind the head" and not stream:  # a plain answer has one head, which says so
            await _send(writer, 500, error)
            return
        writer.write(_head(200, "text/event-stream" if stream else "application/json", None))
        if way == "error behind the head":
            writer.write(_chunk(b"data: " + error + b"\n\n") + b"0\r\n\r\n")
            await writer.drain()
            return
        await writer.drain()
        raise ConnectionResetError

    async def _plain(
        self, request: Received, usage: dict[str, int], writer: asyncio.StreamWriter, struck: bool
    ) -> None:
        await self._gate(request)
        content = f"{self.word} " * usage["completion_tokens"]
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "length"}
        doc = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": request.model}
        answer = json.dumps({**doc, "choices": [choice], "usage": usage}).encode()
        self.served[request.id] = usage["prompt_tokens"], usage["completion_tokens"]
        if struck and request.model in self.cutting:
            writer.write(_head(200, "application/json", len(answer)) + answer[: len(answer) // 2])
            raise ConnectionResetError
        await _send(writer, 200, answer)

    async def _stream(
        self,
        request: Received,
        usage: dict[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        struck: bool,
    ) -> None:
        options = request.body.get("stream_options") or {}
        writer.write(_head(200, "text/event-stream", None))
        for number in range(usage["completion_tokens"]):
            if number == 1:
                await self._gate_or_departure(request, reader)
            choice = {"index": 0, "delta": {"content": f"{self.word} "}, "finish_reason": None}
            await self._event(request, writer, [choice], None)
            if struck and request.model in self.cutting and number * 2 >= usage["completion_tokens"]:
                self.served[request.id] = usage["prompt_tokens"], number + 1
                raise ConnectionResetError
        await self._event(request, writer, [{"index": 0, "delta": {}, "finish_reason": "length"}], None)
        self.served[request.id] = usage["prompt_tokens"], usage["completion_tokens"]
        if options.get("include_usage"):
            await self._event(request, writer, [], usage)
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    async def _event(
        self, request: Received, writer: asyncio.StreamWriter, choices: list[Any], usage: dict[str, int] | None
    ) -> None:
        doc = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": request.model}
        body = json.dumps({**doc, "choices": choices, **({"usage": usage} if usage else {})})
        writer.write(_chunk(f"data: {body}\n\n".encode()))
        await writer.drain()
        self.events += 1

    async def _gate(self, request: Received) -> None:
        if gate := self.gates.get(request.model):
            await gate.wait()

    async def _gate_or_departure(self, request: Received, reader: asyncio.StreamReader) -> None:
        gate = self.gates.get(request.model)
        if gate is None:
            return
        opened, gone = asyncio.ensure_future(gate.wait()), asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((opened, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self.left.append(request.id)
                raise ConnectionResetError
        finally:
            opened.cancel()
            gone.cancel()
            await asyncio.gather(opened, gone, return_exceptions=True)


@contextlib.asynccontextmanager
async def backend(made: Backend | None = None) -> AsyncIterator[Backend]:
    """A backend on a free port of this machine."""
    made = made or Backend()
    async with listening(made.answer, backlog=4096) as url:
        made.url = f"{url}/v1"
        yield made


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(_head(status, "application/json", len(body)) + body)
    await writer.drain()


def _head(status: int, kind: str, length: int | None) -> bytes:
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
