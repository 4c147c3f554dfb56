"""Relays a stream of Anthropic's events: finds usage, withholds the end, which is ``message_stop``."""

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON
from api.router.faces.event_relay import EventRelay
from api.router.faces.messages_usage import Report, gone_on, joined, usage_of
from domain.facts import Usage


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
        known = gone_on(self._report, report)
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


class MessagesRelay(EventRelay):
    """See `Relay`. One per stream."""

    PIECE = b'content_block_delta"'
    __slots__ = ("_usage",)

    def __init__(self, ceiling: int) -> None:
        super().__init__()
        self._usage = UsageOfStream(ceiling)

    @property
    def usage(self) -> Usage | None:
        return self._usage.usage

    @property
    def came_in(self) -> Usage | None:
        return self._usage.came_in

    def _matters(self, data: bytes) -> bool:
        return b"message_" in data or b'"error"' in data

    def _read(self, data: bytes) -> None:
        try:
            event = _event(data)
        except NOT_JSON:
            return
        match event.type:
            case "message_start" if event.message is not None:
                self._usage.began(event.message.usage)
            case "message_delta":
                self._usage.goes_on(event.usage)
            case "message_stop":
                self.done = True
            case "error":
                self.failed = True
