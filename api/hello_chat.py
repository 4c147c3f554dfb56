"""Chat completions as Hello speaks them. It calls the tool that it must call, and answers in the shape that is asked for; what
such an answer costs is its cap all the same."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from api.hello_openai import USAGE, Completion
from api.hello_shapes import Named, chosen, sampled
from api.hello_text import Content, TokenCap, encoded, text_of, words

_CHOICE = b'{"index":%d,"message":%b,"logprobs":null,"finish_reason":"%b"}'
_SAID = b'{"role":"assistant","content":"%b","refusal":null}'
_CALLED = b'{"role":"assistant","content":null,"refusal":null,"tool_calls":[%b]}'
_CALL = b'{"id":"call_%b","type":"function","function":{"name":%b,"arguments":%b}}'
_CHAT = b'{"id":"chatcmpl-%b","object":"chat.completion","created":%d,"model":%b,"choices":[%b],"usage":' + USAGE + b"}"
_OPENING = b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
_DELTA = b'{"index":%d,"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}'
_CALL_DELTA = b'{"index":%d,"delta":{"tool_calls":[%b]},"logprobs":null,"finish_reason":null}'
_CLOSING = b'{"index":%d,"delta":{},"logprobs":null,"finish_reason":"%b"}'


class Message(Struct, frozen=True):
    content: Content = None


class Tool(Struct, frozen=True):
    function: Named = Named()


class JsonSchema(Struct, frozen=True):
    schema: dict[str, Any] = {}


class ResponseFormat(Struct, frozen=True):
    type: str = "text"
    json_schema: JsonSchema = JsonSchema()


class ChatRequest(Completion, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: TokenCap | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None
    response_format: ResponseFormat | None = None

    @property
    def cap(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def prompt_tokens(self) -> int:
        return max(1, sum(words(message.content) for message in self.messages))

    def plain(self, name: bytes, prompt: int, /) -> bytes:
        total = self.completion_tokens
        message, finish = self._message(name)
        choices = b",".join([_CHOICE % (index, message, finish) for index in range(self.n)])
        return _CHAT % (name, int(time.time()), encoded(self.model), choices, prompt, total, prompt + total)

    def events(self, name: bytes, prompt: int, step: int, /) -> Iterator[tuple[int, bytes]]:
        head = (b"chatcmpl-" + name, b"chat.completion.chunk", int(time.time()), encoded(self.model))
        called, shaped = self._called(), self._shaped()
        if called is not None:
            call = b'{"index":0,' + (_CALL % (name, *called))[1:]
            return self.frames(head, prompt, step, _OPENING, _CALL_DELTA, _CLOSING, (call, b"tool_calls"))
        whole = None if shaped is None else (_inside(shaped), b"stop")
        return self.frames(head, prompt, step, _OPENING, _DELTA, _CLOSING, whole)

    def _message(self, name: bytes) -> tuple[bytes, bytes]:
        """A choice's message, and why it ends."""
        called, shaped = self._called(), self._shaped()
        if called is not None:
            return _CALLED % (_CALL % (name, *called)), b"tool_calls"
        if shaped is not None:
            return _SAID % _inside(shaped), b"stop"
        return _SAID % text_of(self.completion_tokens // self.n), self.finish

    def _called(self) -> tuple[bytes, bytes] | None:
        """Name and arguments of the tool that must be called, as JSON."""
        functions = [tool.function for tool in self.tools or ()]
        number = chosen([function.name for function in functions], self.tool_choice)
        if number is None:
            return None
        arguments = sampled(functions[number].parameters).decode()
        return encoded(functions[number].name), msgspec.json.encode(arguments)

    def _shaped(self) -> bytes | None:
        """The JSON that is asked for."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        return sampled(wanted.json_schema.schema) if wanted.type == "json_schema" else b"{}"


def _inside(text: bytes) -> bytes:
    """`text` as it stands inside a JSON string."""
    return msgspec.json.encode(text.decode())[1:-1]
