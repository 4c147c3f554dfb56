"""Anthropic's shapes as Hello speaks them: messages and their token count.

A question with tools is answered by calls of them, at once of all that may be called, until their results come. It never
thinks.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from api.hello_sample import sampled
from api.hello_text import Content, TokenCap, encoded, text_of, words

_MESSAGE = (
    b'{"id":"msg_%b","type":"message","role":"assistant","model":%b,"content":[%b],"stop_reason":%b,"stop_sequence":null,'
    b'"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":%d}}'
)
_TEXT = b'{"type":"text","text":%b}'
_TOOL = b'{"type":"tool_use","id":"toolu_%b_%d","name":%b,"input":%b}'
_START = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n'
_BLOCK = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n'
_TEXT_DELTA = b'{"type":"text_delta","text":%b}'
_TOOL_DELTA = b'{"type":"input_json_delta","partial_json":%b}'
_BLOCK_END = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_END = (
    b"event: message_delta\n"
    b'data: {"type":"message_delta","delta":{"stop_reason":%b,"stop_sequence":null},'
    b'"usage":{"output_tokens":%d}}\n\n'
)
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class Message(Struct, frozen=True):
    content: Content = None


class Tool(Struct, frozen=True):
    """One that the caller runs."""

    name: str
    input_schema: dict[str, Any] = {}
    type: str | None = None


class ToolChoice(Struct, frozen=True):
    type: str = "auto"
    name: str | None = None
    disable_parallel_tool_use: bool = False


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
    """POST /v1/messages. A text always has exactly `max_tokens` tokens, unless it fits a schema; a call is one token."""

    max_tokens: TokenCap
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: ToolChoice = ToolChoice()
    output_config: OutputConfig = OutputConfig()

    @property
    def calls(self) -> list[Tool]:
        """The tools that the answer calls."""
        last = self.messages[-1].content if self.messages else None
        results = isinstance(last, list) and any(part.type == "tool_result" for part in last)
        if results or self.tool_choice.type == "none":
            return []
        named = self.tool_choice.name
        offered = [tool for tool in self.tools if tool.type in (None, "custom") and named in (None, tool.name)]
        return offered[:1] if self.tool_choice.disable_parallel_tool_use else offered

    @property
    def fitted(self) -> bytes | None:
        """The answer where it has a schema."""
        wanted = self.output_config.format
        return None if wanted is None else sampled(wanted.schema)

    @property
    def completion_tokens(self) -> int:
        if calls := self.calls:
            return len(calls)
        fitted = self.fitted
        return self.max_tokens if fitted is None else len(fitted.split())

    def plain(self, name: bytes, prompt: int, /) -> bytes:
        if calls := self.calls:
            blocks = [_tool(name, number, tool, sampled(tool.input_schema)) for number, tool in enumerate(calls)]
            content, stop = b",".join(blocks), b'"tool_use"'
        elif (fitted := self.fitted) is not None:
            content, stop = _TEXT % msgspec.json.encode(fitted.decode()), b'"end_turn"'
        else:
            content, stop = _TEXT % _quoted(self.max_tokens), b'"max_tokens"'
        return _MESSAGE % (name, encoded(self.model), content, stop, prompt, self.completion_tokens)

    def events(self, name: bytes, prompt: int, step: int, /) -> Iterator[tuple[int, bytes]]:
        yield 0, _START % (_MESSAGE % (name, encoded(self.model), b"", b"null", prompt, 0))
        if self.calls:
            yield from self._called(name)
            stop = b'"tool_use"'
        else:
            yield from self._said(step)
            stop = b'"max_tokens"' if self.fitted is None else b'"end_turn"'
        produced = self.completion_tokens
        yield produced, _END % (stop, produced)
        yield produced, _STOP

    def _called(self, name: bytes) -> Iterator[tuple[int, bytes]]:
        for number, tool in enumerate(self.calls):
            yield number, _BLOCK % (number, _tool(name, number, tool, b"{}"))
            given = msgspec.json.encode(sampled(tool.input_schema).decode())
            yield number + 1, _DELTA % (number, _TOOL_DELTA % given)
            yield number + 1, _BLOCK_END % number

    def _said(self, step: int) -> Iterator[tuple[int, bytes]]:
        yield 0, _BLOCK % (0, _TEXT % b'""')
        produced, fitted = 0, self.fitted
        if fitted is not None:
            produced = self.completion_tokens
            yield produced, _DELTA % (0, _TEXT_DELTA % msgspec.json.encode(fitted.decode()))
        for left in range(self.max_tokens if fitted is None else 0, 0, -step):
            count = min(step, left)
            produced += count
            yield produced, _DELTA % (0, _TEXT_DELTA % _quoted(count))
        yield produced, _BLOCK_END % 0


def refusal(kind: str, message: str) -> bytes:
    """An error object of Anthropic's."""
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def _quoted(tokens: int) -> bytes:
    return b'"%b"' % text_of(tokens)


def _tool(name: bytes, number: int, tool: Tool, given: bytes) -> bytes:
    return _TOOL % (name.replace(b"-", b"_"), number, encoded(tool.name), given)
