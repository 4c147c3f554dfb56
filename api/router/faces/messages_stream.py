"""Relays a stream of Anthropic's events: finds usage, withholds the end.

Events pass as they come, byte for byte. From ``message_stop`` on they are withheld until the completion is durable.
"""

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON
from api.router.faces.messages_usage import Report, joined, usage_of
from api.router.faces.sse import Events, data_of, events_of
from domain.facts import Usage

_PIECE = b'content_block_delta"'
"""In the data of every event that carries something, and nowhere else: a quote in a text has a backslash before it."""


class _Message(msgspec.Struct):
    usage: Raw = Raw(b"null")


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    usage: Raw = Raw(b"null")


_event = msgspec.json.Decoder(_Event).decode
_report = msgspec.json.Decoder(Report | None).decode


class UsageOfStream:
    """The reports of one stream, joined. The first says what came in, and of what is put out where it begins: `usage` is None
    until another one said that."""

    __slots__ = ("_ceiling", "_report", "came_in", "usage")

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._report: Report | None = None
        self.came_in: Usage | None = None
        self.usage: Usage | None = None

    def began(self, said: Raw) -> None:
        """With what ``message_start`` says."""
        report = _read(said)
        if report is None:
            return
        self.came_in = usage_of(joined(report, Report(output_tokens=0)), self._ceiling)
        if self.came_in is not None:
            self._report = report

    def goes_on(self, said: Raw) -> None:
        """With what ``message_delta`` says."""
        report = _read(said)
        if report is None or report.output_tokens is None:
            return
        known = joined(self._report, report)
        usage = usage_of(known, self._ceiling)
        if usage is not None:
            self._report, self.usage = known, usage


def _read(said: Raw) -> Report | None:
    """A report that cannot be read is none."""
    try:
        report: Report | None = _report(said)
    except NOT_JSON:
        return None
    return report


class MessagesRelay:
    """See `Relay`. One per stream."""

    __slots__ = ("_events", "_usage", "_withheld", "done", "pieces")

    def __init__(self, ceiling: int) -> None:
        self._events, self._usage = Events(), UsageOfStream(ceiling)
        self._withheld: list[bytes] = []
        self.pieces = 0
        self.done = False

    @property
    def usage(self) -> Usage | None:
        return self._usage.usage

    @property
    def came_in(self) -> Usage | None:
        return self._usage.came_in

    def feed(self, data: bytes) -> bytes:
        block = self._events.feed(data)
        if not self._withheld and b"message_" not in block:
            self.pieces += block.count(_PIECE)
            return block
        passed = [event for event in events_of(block) if self._passes(event)]
        return b"".join(passed)

    def end(self) -> None:
        if (event := self._events.end()) and self._passes(event):
            self._withheld.append(event)

    def rest(self) -> bytes:
        return b"".join(self._withheld)

    def _passes(self, event: bytes) -> bool:
        data = data_of(event)
        self.pieces += data.count(_PIECE)
        self._look(data)
        if not self.done:
            return True
        self._withheld.append(event)
        return False

    def _look(self, data: bytes) -> None:
        try:
            event = _event(data)
        except NOT_JSON:
            return
        if event.type == "message_start" and event.message is not None:
            self._usage.began(event.message.usage)
        elif event.type == "message_delta":
            self._usage.goes_on(event.usage)
        elif event.type == "message_stop":
            self.done = True
