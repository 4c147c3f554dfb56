"""Anthropic's shapes as Hello speaks them: messages and their token count. It calls the tool that it must call, answers in the
shape that is asked for, and never thinks; what such an answer costs is its cap all the same."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from api.hello_shapes import chosen, sampled
from api.hello_text import Content, TokenCap, encoded, text_of, words

_MESSAGE = (
    b'{"id":"msg_%b","type":"message","role":"assistant","model":%b,"content":[%b],"stop_reason":%b,"stop_sequence":null,'
    b'"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":%d}}'
)
_TEXT = b'{"type":"text","text":%b}'
_TOOL = b'{"type":"tool_use","id":"toolu_%b","name":%b,"input":%b}'
_START = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n'
_BLOCK = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":%b}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":%b}\n\n'
_TEXT_DELTA = b'{"type":"text_delta","text":%b}'
_TOOL_DELTA = b'{"type":"input_json_delta","partial_json":%b}'
_BLOCK_END = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
_END = (
    b"event: message_delta\n"
    b'data: {"type":"message_delta","delta":{"stop_reason":%b,"stop_sequence":null},'
    b'"usage":{"output_tokens":%d}}\n\n'
)
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class Message(Struct, frozen=True):
    content: Content = None


class Tool(Struct, frozen=True):
    name: str
    input_schema: dict[str, Any] = {}


class ToolChoice(Struct, frozen=True):
    type: str = "auto"
    name: str | None = None


class Format(Struct, frozen=True):
    schema: dict[str, Any] = {}


class OutputConfig(Struct, frozen=True):
    format: Format | None = None


class CountRequest(Struct, frozen=True, kw_only=True):
    """POST /v1/messages/count_tokens."""

    model: str
    messages: list[Message]
    system: Content = None

    @property
    def prompt_tokens(self) -> int:
        return max(1, words(self.system) + sum(words(message.content) for message in self.messages))


class MessagesRequest(CountRequest, frozen=True, kw_only=True):
    """POST /v1/messages. The answer always has exactly `max_tokens` tokens."""

    max_tokens: TokenCap
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: ToolChoice = ToolChoice()
    output_config: OutputConfig = OutputConfig()

    @property
    def completion_tokens(self) -> int:
        return self.max_tokens

    def plain(self, name: bytes, prompt: int, /) -> bytes:
        called, shaped, stop = self._called(), self._shaped(), b'"max_tokens"'
        if called is not None:
            content, stop = _TOOL % (name, encoded(called.name), sampled(called.input_schema)), b'"tool_use"'
        elif shaped is not None:
            content, stop = _TEXT % _string(shaped), b'"end_turn"'
        else:
            content = _TEXT % _words(self.max_tokens)
        return _MESSAGE % (name, encoded(self.model), content, stop, prompt, self.max_tokens)

    def events(self, name: bytes, prompt: int, step: int, /) -> Iterator[tuple[int, bytes]]:
        yield 0, _START % (_MESSAGE % (name, encoded(self.model), b"", b"null", prompt, 0))
        called, shaped, stop = self._called(), self._shaped(), b'"max_tokens"'
        if called is not None:
            yield 0, _BLOCK % (_TOOL % (name, encoded(called.name), b"{}"))
            yield self.max_tokens, _DELTA % (_TOOL_DELTA % _string(sampled(called.input_schema)))
            stop = b'"tool_use"'
        elif shaped is not None:
            yield 0, _BLOCK % (_TEXT % b'""')
            yield self.max_tokens, _DELTA % (_TEXT_DELTA % _string(shaped))
            stop = b'"end_turn"'
        else:
            yield from self._said(step)
        yield self.max_tokens, _BLOCK_END
        yield self.max_tokens, _END % (stop, self.max_tokens)
        yield self.max_tokens, _STOP

    def _said(self, step: int) -> Iterator[tuple[int, bytes]]:
        yield 0, _BLOCK % (_TEXT % b'""')
        for left in range(self.max_tokens, 0, -step):
            count = min(step, left)
            yield self.max_tokens - left + count, _DELTA % (_TEXT_DELTA % _words(count))

    def _called(self) -> Tool | None:
        """The tool that must be called."""
        choice = self.tool_choice
        wanted = "required" if choice.type == "any" else {"name": choice.name}
        number = chosen([tool.name for tool in self.tools], wanted)
        return None if number is None else self.tools[number]

    def _shaped(self) -> bytes | None:
        """The JSON that is asked for."""
        wanted = self.output_config.format
        return None if wanted is None else sampled(wanted.schema)


def refusal(kind: str, message: str) -> bytes:
    """An error object of Anthropic's."""
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def _words(tokens: int) -> bytes:
    return b'"%b"' % text_of(tokens)


def _string(text: bytes) -> bytes:
    return msgspec.json.encode(text.decode())
