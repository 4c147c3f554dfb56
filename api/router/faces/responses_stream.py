"""Relays a stream of a response's events: finds usage, withholds the end, which is ``response.completed``, ``incomplete`` or
``failed``: it holds the usage.
"""

import re

import msgspec

from api.router.errors import NOT_JSON
from api.router.faces.event_relay import EventRelay
from api.router.faces.responses_usage import Event, usage_of_report
from api.router.faces.sse import is_error
from domain.facts import Usage
from domain.token_report import latest

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_MAYBE_END = re.compile(rb'"response\.(?:completed|incomplete|failed)"')

_event = msgspec.json.Decoder(Event).decode


class ResponsesRelay(EventRelay):
    """See `Relay`. One per stream."""

    PIECE = b'.delta"'
    came_in: Usage | None = None
    __slots__ = ("_ceiling", "usage")

    def __init__(self, ceiling: int) -> None:
        super().__init__()
        self._ceiling = ceiling
        self.usage: Usage | None = None

    def _matters(self, data: bytes) -> bool:
        return b'"error"' in data or _MAYBE_END.search(data) is not None

    def _read(self, data: bytes) -> None:
        try:
            event = _event(data)
        except NOT_JSON:  # a report that is no report still ends the stream
            event = Event(_type_of(data))
        self.failed = self.failed or event.type == "response.failed" or is_error(data)
        if event.type in _ENDS:
            self.done = True
            if event.response is not None:
                self.usage = latest(usage_of_report(event.response.usage, self._ceiling), self.usage)


class _Typed(msgspec.Struct):
    type: str = ""


_typed = msgspec.json.Decoder(_Typed).decode


def _type_of(data: bytes) -> str:
    try:
        return _typed(data).type
    except NOT_JSON:
        return ""
