"""A stream of chat completion chunks as one of Anthropic's events. ``message_delta``, which has the usage, and
``message_stop`` are withheld until the completion is durable.

Blocks follow one another there, while calls of tools may come interleaved here: the first block that is not whole is the
one that passes as it comes, and what belongs to others waits for their turn.
"""

from typing import Any

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON
from api.router.faces.chat_usage import usage_of_chunk
from api.router.faces.fault import Fault, fault_of
from api.router.faces.messages_to_chat_answer import counted, fault_shown, stop_of, usage_shown
from api.router.faces.messages_to_chat_blocks import Blocks, event
from api.router.faces.sse import BROKE, Events, data_of, events_of, is_error
from commands.admission import Call
from domain.facts import Usage
from domain.token_report import latest


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str = ""
    model: str = ""
    choices: list[_Choice] = []
    error: Fault | str | None = None
    usage: Raw = Raw(b"null")
    type: str = ""
    message: str = ""


_chunk = msgspec.json.Decoder(_Chunk).decode


class MessagesOfChat:
    """See `Relay`. One per stream."""

    came_in: Usage | None = None
    __slots__ = (
        "_blocks", "_call", "_ceiling", "_events", "_finish", "_late", "_refused", "_started", "done", "failed", "pieces",
        "usage",
    )  # fmt: skip

    def __init__(self, call: Call, ceiling: int) -> None:
        self._call, self._ceiling = call, ceiling
        self._events, self._blocks = Events(), Blocks()
        self._started = self._refused = False
        self._finish: str | None = None
        self._late = b""
        """What the last event says, if it came without its blank line: nothing is passed on behind the end of the stream."""
        self.usage: Usage | None = None
        self.pieces = 0
        self.done = self.failed = False

    def feed(self, data: bytes) -> bytes:
        block = self._events.feed(data)
        return b"".join([self._shown(sent) for sent in events_of(block)]) if block else b""

    def end(self) -> None:
        if sent := self._events.end():
            self._late = self._shown(sent)

    def rest(self) -> bytes:
        """The end, if the answer came to one."""
        if self.failed or not self._started or (self._finish is None and not self.done):
            return self._late
        usage = usage_shown(self.usage or counted(self._call, self.pieces))
        reason = stop_of(self._finish, refused=self._refused, called=self._blocks.called)
        stop = {"stop_reason": reason, "stop_sequence": None}
        end = event("message_delta", delta=stop, usage=usage) + event("message_stop")
        return self._late + self._blocks.end() + end

    def _shown(self, sent: bytes) -> bytes:
        data = data_of(sent)
        if data == b"[DONE]":
            self.done = True
        if not data or self.failed:
            return b""
        try:
            chunk = _chunk(data)
        except NOT_JSON:
            return self._broke(fault_of(data, BROKE)) if not self.done and is_error(data) else b""
        if bytes(chunk.usage) != b"null":
            self.usage = latest(usage_of_chunk(data, self._ceiling)[0], self.usage)
        return b"" if self.done else self._events_of(chunk)

    def _events_of(self, chunk: _Chunk) -> bytes:
        if chunk.error is not None or chunk.type == "error":
            return self._broke(chunk.error if isinstance(chunk.error, Fault) else Fault(chunk.error or chunk.message))
        if not chunk.choices:
            return b""
        self.pieces += 1
        started = b"" if self._started else self._start(chunk)
        return started + self._choice(chunk.choices[0])

    def _broke(self, fault: Fault) -> bytes:
        self.failed = True
        return b"event: error\ndata: " + fault_shown(_status(fault), fault) + b"\n\n"

    def _start(self, chunk: _Chunk) -> bytes:
        """What came in is only known at the end, and said then."""
        self._started = True
        message: dict[str, Any] = {
            "id": chunk.id,
            "type": "message",
            "role": "assistant",
            "model": chunk.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return event("message_start", message=message)

    def _choice(self, choice: _Choice) -> bytes:
        shown = self._delta(choice.delta) if choice.delta is not None else b""
        self._finish = choice.finish_reason or self._finish
        return shown

    def _delta(self, delta: _Delta) -> bytes:
        shown = [self._blocks.words(words) for words in (delta.content, delta.refusal) if words]
        self._refused = self._refused or bool(delta.refusal)
        for call in delta.tool_calls or ():
            function = call.function or _Function()
            shown.append(self._blocks.call(call.index or 0, call.id, function.name, function.arguments))
        return b"".join(shown)


def _status(fault: Fault) -> int:
    """Of an error that came instead of the rest of a stream: what its type, or its code, says."""
    if isinstance(fault.code, int):
        return fault.code
    if fault.code == "rate_limit_exceeded":  # its type is what is limited
        return 429
    return {"rate_limit_error": 429, "invalid_request_error": 400}.get(fault.type or "", 500)
