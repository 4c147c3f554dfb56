"""Server-sent events as bytes: where one ends, what it says, and a stream cut into them."""

import re

import msgspec

from api.router.errors import NOT_JSON
from domain.errors import UpstreamFailed

BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
"""The end of a line and a blank one. A line ends with LF, CR LF or CR."""


MAX_EVENT = 8 * 1024 * 1024
"""Bytes of one event, at most: it must be held until it is whole."""


BROKE = "the answer broke"
"""What is said of an error that comes in a stream without words of its own."""


class Unfinished:
    """An event that is still coming. It is looked through once, when it is whole: doing so with each of its pieces would cost the
    square of its size."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def __bool__(self) -> bool:
        return bool(self._held)

    def with_(self, data: bytes) -> bytes:
        """All that came, with `data`, if an event may end in that; else nothing: it is kept, too. Raises as `keep` does."""
        held = self._held
        if not held:
            return data
        if not last_boundary(bytes(held[-3:]) + data):  # the longest boundary has four bytes
            self.keep(data)
            return b""
        return self.taken() + data

    def keep(self, data: bytes) -> None:
        """Raises `UpstreamFailed` for an event that is larger than any may be."""
        self._held += data
        if len(self._held) > MAX_EVENT:
            raise UpstreamFailed(f"an event of the backend's stream is larger than {MAX_EVENT} bytes", sent=True)

    def taken(self) -> bytes:
        """What there is of it, which is kept no more."""
        held, self._held = self._held, bytearray()
        return bytes(held)


def last_boundary(data: bytes) -> int:
    """Where the last event that is whole ends, 0 if none is."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    end = 0
    for boundary in BOUNDARY.finditer(data):
        end = boundary.end()
    return end


def events_of(block: bytes) -> list[bytes]:
    """The events of a block that ends with one, each with its blank line; an LF that comes first is the end of another."""
    events, start = ([b"\n"], 1) if block[:1] == b"\n" else ([], 0)
    for boundary in BOUNDARY.finditer(block, start):
        events.append(block[start : boundary.end()])
        start = boundary.end()
    return events


def data_of(event: bytes) -> bytes:
    """The data of an event: empty for a comment."""
    return b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))


class _Told(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


_told = msgspec.json.Decoder(_Told).decode


def is_error(data: bytes) -> bool:
    """Whether an event has a member `error`, or is of that type: so backends tell that an answer broke."""
    try:
        told = _told(data)
    except NOT_JSON:
        return False
    return bytes(told.error) != b"null" or bytes(told.type) == b'"error"'


def begins_with_error(block: bytes) -> bool:
    """Whether the first event that says something is an error: some backends answer 200 before they know whether they can answer
    at all."""
    for line in block.splitlines():
        if line.startswith(b"data:"):
            return is_error(line[5:])
    return False


class Events:
    """A stream, whatever pieces its bytes come in."""

    __slots__ = ("_half", "_tail")

    def __init__(self) -> None:
        self._tail = Unfinished()
        self._half = False

    def feed(self, data: bytes) -> bytes:
        """The events that are whole now, as one block. An LF that was cut off the CR of the event before comes first."""
        late = self._half and data[:1] == b"\n"
        if late:
            data = data[1:]
        self._half = self._half and not data and not late
        data = self._tail.with_(data)
        end = last_boundary(data)
        block = data[:end]
        if end < len(data):
            self._tail.keep(data[end:])
        if end:
            self._half = not self._tail and block[-1] == 13
        return b"\n" + block if late else block

    def end(self) -> bytes:
        """Nothing more comes: what is left without a blank line is the last event."""
        return self._tail.taken()
