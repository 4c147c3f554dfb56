"""Relays a stream's server-sent events: finds usage, hides it from callers who did not ask, withholds the end.

Whole events pass as they come, byte for byte. From ``[DONE]`` on bytes are withheld until the completion is durable, and so is a
chunk that holds nothing but usage, until another one comes: `rest` is what is still owed to the caller then.
"""

import re

import msgspec

from api.router.faces.chat_usage import usage_of_chunk
from api.router.faces.sse import BOUNDARY, Unfinished, data_of, is_error, last_boundary
from domain.facts import Usage
from domain.token_report import latest

_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


_PASSED, _HIDDEN, _WITHHELD = b"passed", b"hidden", b"withheld"
"""What became of an event whose last byte so far is a CR: an LF that comes next belongs to it."""


class ChunkRelay:
    """See `Relay`. One per stream."""

    came_in: Usage | None = None
    __slots__ = ("_asked", "_ceiling", "_half", "_tail", "_withheld", "done", "failed", "pieces", "usage")

    def __init__(self, asked: bool, ceiling: int) -> None:
        self._asked, self._ceiling = asked, ceiling
        self._tail, self._half = Unfinished(), b""
        self._withheld: list[bytes] = []
        self.usage: Usage | None = None
        self.pieces = 0
        self.done = self.failed = False

    def feed(self, data: bytes) -> bytes:
        """What of the stream so far may go to the caller now."""
        if self._half and data:
            half, self._half = self._half, b""
            if data[0] == 10:  # the LF of a CR LF that was cut in two goes the way of its CR
                return self._lf(half) + self.feed(data[1:])
        data = self._tail.with_(data)
        end = last_boundary(data)
        if end < len(data):
            self._tail.keep(data[end:])
        if not end:
            return b""
        block = data[:end]
        passed, last = self._events(block)
        if not self._tail and block[-1] == 13:
            self._half = _WITHHELD if self._withheld else _PASSED if last else _HIDDEN
        return passed

    def _lf(self, half: bytes) -> bytes:
        if half is _WITHHELD:
            self._withheld.append(b"\n")
        return b"\n" if half is _PASSED else b""

    def _events(self, block: bytes) -> tuple[bytes, bytes]:
        """What may pass of whole events, and of the last one."""
        if not self._withheld and b'"usage"' not in block and b"[DONE]" not in block and b'"error"' not in block:
            self.pieces += block.startswith(b"data:") + block.count(b"\ndata:") + block.count(b"\rdata:")
            return block, block
        passed, event, start = [], b"", 0
        for boundary in BOUNDARY.finditer(block):
            event = self._event(block[start : boundary.end()])
            start = boundary.end()
            if event:
                passed.append(event)
        return b"".join(passed), event

    def end(self) -> None:
        """Nothing more comes: what is left without a blank line is the last event."""
        event = self._tail.taken()
        if event and (owed := self._event(event)):
            self._withheld.append(owed)

    def rest(self) -> bytes:
        """What is owed to the caller once the completion is durable."""
        return b"".join(self._withheld)

    def _event(self, event: bytes) -> bytes:
        data = data_of(event)
        if b'"error"' in data and is_error(data):
            self.failed = True
        if self.done or data == b"[DONE]":
            self.done = True
            self._withhold(event, data)
            return b""
        if not data:  # a comment carries nothing
            return self._behind(event) if self._withheld else event
        if b'"usage"' not in data:
            self.pieces += 1
            return self._passed(event)
        if len(_NULL_USAGE.findall(data)) == data.count(b'"usage"'):
            self.pieces += 1
            return self._passed(event if self._asked else _NULL_USAGE.sub(b"", event))
        return self._reporting(event, data)

    def _reporting(self, event: bytes, data: bytes) -> bytes:
        usage, alone = usage_of_chunk(data, self._ceiling)
        self.usage = latest(usage, self.usage)
        if alone:
            return self._behind(event) if self._asked else b""
        self.pieces += 1
        if usage is None or self._asked:
            return self._passed(event)
        try:
            chunk = _members(data)
        except UnicodeDecodeError:  # a name that is no text: better shown with its usage than not at all
            return event
        del chunk["usage"]
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _passed(self, event: bytes) -> bytes:
        """A report on its own was not the end after all if more comes: it passes with that."""
        if not self._withheld:
            return event
        before, self._withheld = self._withheld, []
        return b"".join(before) + event

    def _behind(self, event: bytes) -> bytes:
        self._withheld.append(event)
        return b""

    def _withhold(self, event: bytes, data: bytes) -> None:
        """The last report counts, also behind the end."""
        alone = False
        if b'"usage"' in data:
            usage, alone = usage_of_chunk(data, self._ceiling)
            self.usage = latest(usage, self.usage)
        if self._asked or not alone:
            self._withheld.append(event)
