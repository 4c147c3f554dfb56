"""Relays a stream's server-sent events: finds usage, hides it from callers who did not ask, withholds the end.

Whole events pass as they come, byte for byte. From ``[DONE]`` on (and the chunk that holds nothing but usage) bytes are
withheld until the completion is durable: `rest` is what is still owed to the caller then.
"""

import re

import msgspec

from api.router.usage import usage_of_chunk
from domain.facts import Usage

_BOUNDARY = re.compile(rb"\r?\n\r?\n")
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class EventRelay:
    """One per stream. `usage` is the last report, `pieces` counts the events that carried something, `done` says that the
    stream announced its end."""

    __slots__ = ("_asked", "_ceiling", "_tail", "_withheld", "done", "pieces", "usage")

    def __init__(self, asked: bool, ceiling: int) -> None:
        self._asked, self._ceiling = asked, ceiling
        self._tail = b""
        self._withheld: list[bytes] = []
        self.usage: Usage | None = None
        self.pieces = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """What of the stream so far may go to the caller now."""
        if self._tail:
            data = self._tail + data
        blank, crlf = data.rfind(b"\n\n"), data.rfind(b"\n\r\n")
        if blank < 0 and crlf < 0:
            self._tail = data
            return b""
        end = max(blank + 2, crlf + 3)
        block, self._tail = data[:end], data[end:]
        if not self._withheld and b'"usage"' not in block and b"[DONE]" not in block:
            self.pieces += block.startswith(b"data:") + block.count(b"\ndata:")
            return block
        passed = []
        start = 0
        for boundary in _BOUNDARY.finditer(block):
            event = self._event(block[start : boundary.end()])
            start = boundary.end()
            if event:
                passed.append(event)
        passed.append(block[start:])
        return b"".join(passed)

    def end(self) -> None:
        """Nothing more comes: what is left without a blank line is the last event."""
        event, self._tail = self._tail, b""
        if event and (owed := self._event(event)):
            self._withheld.append(owed)

    def rest(self) -> bytes:
        """What is owed to the caller once the completion is durable."""
        return b"".join(self._withheld)

    def _event(self, event: bytes) -> bytes:
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if self._withheld or data == b"[DONE]":
            self.done = self.done or data == b"[DONE]"
            self._withheld.append(event)
            if b'"usage"' in data:  # the last report counts, also behind one that is withheld
                self.usage = usage_of_chunk(data, self._ceiling)[0] or self.usage
            return b""
        if b'"usage"' not in data:
            self.pieces += bool(data)  # a comment carries nothing
            return event
        if _NULL_USAGE.search(data):
            self.pieces += 1
            return event if self._asked else _NULL_USAGE.sub(b"", event)
        usage, alone = usage_of_chunk(data, self._ceiling)
        if usage is not None:
            self.usage = usage
        if alone:
            if self._asked:
                self._withheld.append(event)
            return b""
        self.pieces += 1
        if usage is None or self._asked:
            return event
        try:
            chunk = _members(data)
        except UnicodeDecodeError:  # a name that is no text: better shown with its usage than not at all
            return event
        del chunk["usage"]
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
