"""Hello: a model backend that answers at once, reports exact usage and can keep a journal of what it served.

It speaks OpenAI's chat completions, completions, embeddings, responses and models, and Anthropic's messages, plain and
streamed. It calls the tool that it must call, and answers in the shape that it must have. A token is a word: the prompt has
as many as its texts have words (at least one), the answer exactly as many as its cap allows, 16 without a cap.

It guarantees that a request's line is in the journal before the last byte of its answer leaves, and that a request it
refuses is not in the journal. It checks no keys and keeps no text.

A service of your own has this shape: request types that know their shapes (`hello_chat`, `hello_anthropic`), one class that
is the ASGI application, options in one struct, and a line in `cli.main` that starts it.
"""

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from api import hello_anthropic, hello_chat, hello_openai, hello_responses
from api.hello_journal import Journal, State
from api.router.errors import NOT_JSON

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STEP = 20
"""Tokens in one event of a stream that is not slowed down."""

_JSON = (b"content-type", b"application/json")
_SSE = (b"content-type", b"text/event-stream; charset=utf-8")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How Hello behaves: delays in milliseconds, rates from 0 to 1. `drop_rate` of the answers end half way."""

    ttft_ms: float = 0.0
    ms_per_token: float = 0.0
    error_rate: float = 0.0
    drop_rate: float = 0.0
    journal: Path | None = None
    models: tuple[str, ...] = ("hello",)


class Ask(Protocol):
    """A request that Hello can serve. `events` yields (tokens produced so far, bytes), at most `step` tokens at a time."""

    @property
    def model(self) -> str: ...
    @property
    def stream(self) -> bool: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    def plain(self, name: bytes, prompt: int, /) -> bytes: ...
    def events(self, name: bytes, prompt: int, step: int, /) -> Iterator[tuple[int, bytes]]: ...


_PARSERS: dict[str, Callable[[bytes], Ask]] = {
    "/v1/chat/completions": msgspec.json.Decoder(hello_chat.ChatRequest).decode,
    "/v1/completions": msgspec.json.Decoder(hello_openai.TextRequest).decode,
    "/v1/embeddings": msgspec.json.Decoder(hello_openai.EmbeddingRequest).decode,
    "/v1/responses": msgspec.json.Decoder(hello_responses.ResponsesRequest).decode,
    "/v1/messages": msgspec.json.Decoder(hello_anthropic.MessagesRequest).decode,
}
_count = msgspec.json.Decoder(hello_anthropic.CountRequest).decode


class Hello:
    """The ASGI application. `served`, `refused` and `tokens` count since the start."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.journal = Journal(options.journal)
        self.served = self.refused = self.tokens = 0
        self._run = secrets.token_hex(6).encode() + b"-%d"
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        parse = _PARSERS.get(path) if scope["method"] == "POST" else None
        if parse is None:
            await self._other(path, scope["method"], receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        try:
            ask = parse(body)
        except NOT_JSON as error:
            await self._refuse(send, path, 400, str(error))
            return
        if self.options.error_rate and random.random() < self.options.error_rate:
            await self._refuse(send, path, 500, "Hello was told to fail this often")
            return
        request_id = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None
        )
        if ask.stream:
            await self._stream(ask, request_id, receive, send)
        else:
            await self._plain(ask, request_id, send)

    async def _plain(self, ask: Ask, request_id: str | None, send: Send) -> None:
        options, prompt = self.options, ask.prompt_tokens
        if delay := options.ttft_ms + options.ms_per_token * ask.completion_tokens:
            await asyncio.sleep(delay / 1000)
        answer = ask.plain(self._name(), prompt)
        dropped = self._drops()
        self._account(ask, request_id, prompt, ask.completion_tokens, "dropped" if dropped else "served")
        await send(_start(200, _JSON, request_id, len(answer)))
        if dropped:
            # Ending without the announced bytes makes the server cut the connection.
            await send({"type": "http.response.body", "body": answer[: len(answer) // 2], "more_body": True})
            return
        await send({"type": "http.response.body", "body": answer})

    async def _stream(self, ask: Ask, request_id: str | None, receive: Receive, send: Send) -> None:
        options, prompt = self.options, ask.prompt_tokens
        slow = options.ttft_ms + options.ms_per_token > 0
        step = 1 if options.ms_per_token else STEP
        stop_after = ask.completion_tokens // 2 if self._drops() else None
        async with _departure(receive) if slow else contextlib.nullcontext(None) as left:
            await send(_start(200, _SSE, request_id, None))
            if slow:
                await asyncio.sleep(options.ttft_ms / 1000)
            produced, held = 0, b""
            for count, event in ask.events(self._name(), prompt, step):
                if held:
                    await send({"type": "http.response.body", "body": held, "more_body": True})
                if options.ms_per_token and count > produced:
                    await asyncio.sleep(options.ms_per_token * (count - produced) / 1000)
                if left is not None and left.done():
                    self._account(ask, request_id, prompt, produced, "abandoned")
                    return
                produced, held = count, event
                if stop_after is not None and produced >= stop_after:
                    self._account(ask, request_id, prompt, produced, "dropped")
                    await send({"type": "http.response.body", "body": held, "more_body": True})
                    return
        self._account(ask, request_id, prompt, produced, "served")
        await send({"type": "http.response.body", "body": held})

    async def _other(self, path: str, method: str, receive: Receive, send: Send) -> None:
        match method, path:
            case "GET", "/v1/models":
                await _answer(send, 200, msgspec.json.encode({"object": "list", "data": self._models()}))
            case "GET", "/healthz" | "/readyz":
                await _answer(send, 200, b'{"status":"ok"}')
            case "GET", "/metrics":
                await _answer(send, 200, self._metrics(), (b"content-type", b"text/plain; version=0.0.4"))
            case "POST", "/v1/messages/count_tokens":
                try:
                    count = _count(await _body(receive) or b"").prompt_tokens
                except NOT_JSON as error:
                    await self._refuse(send, path, 400, str(error))
                    return
                await _answer(send, 200, b'{"input_tokens":%d}' % count)
            case _:
                await self._refuse(send, path, 404, f"Hello has no {method} {path}")

    async def _refuse(self, send: Send, path: str, status: int, message: str) -> None:
        self.refused += 1
        if path.startswith("/v1/messages"):
            kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
            await _answer(send, status, hello_anthropic.refusal(kind, message))
            return
        kind = "server_error" if status >= 500 else "invalid_request_error"
        code = {400: "invalid_value", 404: "unknown_url"}.get(status, "internal_error")
        await _answer(send, status, hello_openai.refusal(kind, message, code))

    def _account(self, ask: Ask, request_id: str | None, prompt: int, completion: int, state: State) -> None:
        self.served += 1
        self.tokens += prompt + completion
        self.journal.write(request_id, ask.model, prompt, completion, ask.stream, state)

    def _drops(self) -> bool:
        return self.options.drop_rate > 0 and random.random() < self.options.drop_rate

    def _name(self) -> bytes:
        self._number += 1
        return self._run % self._number

    def _models(self) -> list[dict[str, Any]]:
        return [{"id": name, "object": "model", "created": 0, "owned_by": "hello"} for name in self.options.models]

    def _metrics(self) -> bytes:
        figures = {"served": self.served, "refused": self.refused, "tokens": self.tokens}
        lines = [f"# TYPE hello_{name}_total counter\nhello_{name}_total {count}\n" for name, count in figures.items()]
        return "".join(lines).encode()


@contextlib.asynccontextmanager
async def _departure(receive: Receive) -> AsyncIterator[asyncio.Future[Any]]:
    """A task that is done once the caller has left."""
    task = asyncio.ensure_future(receive())
    try:
        yield task
    finally:
        task.cancel()


async def _body(receive: Receive) -> bytes | None:
    """The whole body of the request; None when the caller left before its end."""
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    if not message.get("more_body"):
        return bytes(message.get("body", b""))
    parts = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
    return b"".join(parts)


def _start(status: int, kind: tuple[bytes, bytes], request_id: str | None, length: int | None) -> dict[str, Any]:
    headers = [kind]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    if request_id is not None:
        headers.append((b"x-request-id", request_id.encode("latin-1")))
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _answer(send: Send, status: int, body: bytes, kind: tuple[bytes, bytes] = _JSON) -> None:
    await send(_start(status, kind, None, len(body)))
    await send({"type": "http.response.body", "body": body})
