"""A stream of Anthropic's events as one of chat completion chunks: usage is read from the events, and shown to callers who
asked. ``[DONE]``, and the chunk of usage before it, are withheld until the completion is durable.

A ping becomes a comment, thinking becomes nothing: the protocol has no place for it.
"""

import time
from typing import Any

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON
from api.router.faces.chat_to_messages_answer import (
    Block,
    StopDetails,
    fault_shown,
    finish_of,
    input_shown,
    usage_shown,
)
from api.router.faces.fault import Fault, fault_of
from api.router.faces.messages_stream import UsageOfStream
from api.router.faces.sse import BROKE, Events, data_of, events_of, is_error
from domain.facts import Usage

_DONE = b"data: [DONE]\n\n"
_PING = b": ping\n\n"


class _Started(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: Raw = Raw(b"null")


class _Delta(msgspec.Struct):
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Started | None = None
    content_block: Block | None = None
    delta: _Delta | None = None
    usage: Raw = Raw(b"null")
    error: Fault | None = None


_event = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.encode


class ChatOfMessages:
    """See `Relay`. One per stream."""

    __slots__ = (
        "_asked", "_call", "_calls", "_events", "_finished", "_head", "_late", "_usage", "_wordless", "done", "failed", "pieces",
    )  # fmt: skip

    def __init__(self, asked: bool, ceiling: int) -> None:
        self._asked = asked
        self._events, self._usage = Events(), UsageOfStream(ceiling)
        self._head = _head_of(_Started())
        self._calls, self._call = 0, False
        self._wordless = True
        """Nothing has come of the input of the tool that is called now."""
        self._finished = False
        self._late = b""
        """What the last event says, if it came without its blank line: nothing is passed on behind the end of the stream."""
        self.pieces = 0
        self.done = self.failed = False

    @property
    def usage(self) -> Usage | None:
        return self._usage.usage

    @property
    def came_in(self) -> Usage | None:
        return self._usage.came_in

    def feed(self, data: bytes) -> bytes:
        block = self._events.feed(data)
        return b"".join([self._shown(event) for event in events_of(block)]) if block else b""

    def end(self) -> None:
        if event := self._events.end():
            self._late = self._shown(event)

    def rest(self) -> bytes:
        """The end, if the answer came to one."""
        if self.failed or not (self.done or self._finished):
            return self._late
        usage = self._usage.usage
        if not self._asked or usage is None:
            return self._late + _DONE
        return self._late + self._head + b'[],"usage":' + _encode(usage_shown(usage)) + b"}\n\n" + _DONE

    def _shown(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return b""
        try:
            read = _event(data)
        except NOT_JSON:
            return self._broke(fault_of(data, BROKE)) if not (self.failed or self.done) and is_error(data) else b""
        if self.failed or self.done:
            self._count(read)
            return b""
        return self._chunks(read)

    def _count(self, event: _Event) -> None:
        if event.type == "message_delta":
            self._usage.goes_on(event.usage)

    def _chunks(self, event: _Event) -> bytes:
        match event.type:
            case "message_start":
                return self._start(event.message or _Started())
            case "content_block_start":
                return self._block(event.content_block or Block())
            case "content_block_delta":
                self.pieces += 1
                return self._piece(event.delta or _Delta())
            case "content_block_stop":
                return self._block_ends()
            case "message_delta":
                self._usage.goes_on(event.usage)
                return self._finish(event.delta or _Delta())
            case "message_stop":
                self.done = True
            case "ping":
                return _PING
            case "error":
                return self._broke(event.error or Fault())
        return b""

    def _broke(self, fault: Fault) -> bytes:
        self.failed = True
        return b"data: " + fault_shown(fault) + b"\n\n"

    def _start(self, message: _Started) -> bytes:
        self._usage.began(message.usage)
        named = {
            "id": message.id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": message.model,
        }
        self._head = b"data: " + _encode(named)[:-1] + b',"choices":'
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _block(self, block: Block) -> bytes:
        if block.type == "text" and block.text:
            return self._chunk({"content": block.text})
        if block.type != "tool_use":
            return b""
        whole = bytes(block.input) not in (b"{}", b"null")
        self._call, self._wordless, self._calls = True, not whole, self._calls + 1
        function = {"name": block.name, "arguments": input_shown(block) if whole else ""}
        return self._called({"id": block.id, "type": "function", "function": function})

    def _piece(self, delta: _Delta) -> bytes:
        if delta.text is not None:
            return self._chunk({"content": delta.text})
        if delta.partial_json and self._call:
            self._wordless = False
            return self._called({"function": {"arguments": delta.partial_json}})
        return b""

    def _block_ends(self) -> bytes:
        """A tool that wants no input is called with none: an empty object, where no text is JSON."""
        wordless, self._call = self._call and self._wordless, False
        return self._called({"function": {"arguments": "{}"}}) if wordless else b""

    def _finish(self, delta: _Delta) -> bytes:
        if delta.stop_reason is None or self._finished:
            return b""
        self._finished = True
        refused = b""
        if delta.stop_details is not None and delta.stop_details.explanation:
            refused = self._chunk({"refusal": delta.stop_details.explanation})
        return refused + self._chunk({}, finish_of(delta.stop_reason))

    def _called(self, call: dict[str, Any]) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls - 1, **call}]})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = b',"usage":null' if self._asked else b""
        return self._head + _encode([choice]) + usage + b"}\n\n"


def _head_of(message: _Started) -> bytes:
    """What every chunk begins with."""
    named = {"id": message.id, "object": "chat.completion.chunk", "created": int(time.time()), "model": message.model}
    return b"data: " + _encode(named)[:-1] + b',"choices":'
