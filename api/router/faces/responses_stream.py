"""Relays a stream of a response's events: finds usage, withholds the end.

Events pass as they come, byte for byte. From the one that ends the response on (``response.completed``, ``incomplete`` or
``failed``: it holds the usage) they are withheld until the completion is durable.
"""

import re

import msgspec

from api.router.errors import NOT_JSON
from api.router.faces.responses_usage import Event, usage_of_report
from api.router.faces.sse import Events, data_of, events_of
from domain.facts import Usage

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_MAYBE_END = re.compile(rb'"response\.(?:completed|incomplete|failed)"')
_PIECE = b'.delta"'
"""In the data of every event that carries something, and nowhere else: a quote in a text has a backslash before it."""

_event = msgspec.json.Decoder(Event).decode


class ResponsesRelay:
    """See `Relay`. One per stream."""

    came_in: Usage | None = None
    __slots__ = ("_ceiling", "_events", "_withheld", "done", "pieces", "usage")

    def __init__(self, ceiling: int) -> None:
        self._ceiling, self._events = ceiling, Events()
        self._withheld: list[bytes] = []
        self.usage: Usage | None = None
        self.pieces = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        block = self._events.feed(data)
        if not self._withheld and not _MAYBE_END.search(block):
            self.pieces += block.count(_PIECE)
            return block
        return b"".join([event for event in events_of(block) if self._passes(event)])

    def end(self) -> None:
        if (event := self._events.end()) and self._passes(event):
            self._withheld.append(event)

    def rest(self) -> bytes:
        return b"".join(self._withheld)

    def _passes(self, event: bytes) -> bool:
        data = data_of(event)
        self.pieces += data.count(_PIECE)
        if _MAYBE_END.search(data):
            self._read(data)
        if not self.done:
            return True
        self._withheld.append(event)
        return False

    def _read(self, data: bytes) -> None:
        try:
            event = _event(data)
        except NOT_JSON:  # a report that is no report still ends the stream
            self.done = self.done or _type_of(data) in _ENDS
            return
        if event.type in _ENDS:
            self.done = True
            if event.response is not None:
                self.usage = usage_of_report(event.response.usage, self._ceiling) or self.usage


class _Typed(msgspec.Struct):
    type: str = ""


_typed = msgspec.json.Decoder(_Typed).decode


def _type_of(data: bytes) -> str:
    try:
        return _typed(data).type
    except NOT_JSON:
        return ""
