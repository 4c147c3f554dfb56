"""Headers of Kafka records: what a consumer that knows nothing of Tollhouse can route by, and the links of the control chain.

An envelope's record carries the required attributes of CloudEvents 1.0 in Kafka's binary mode, so that any consumer can tell
events apart without decoding them. Stored format.
"""

from collections.abc import Sequence

import msgspec

Headers = list[tuple[str, str | bytes | None]]

SOURCE = "tollhouse"
"""`ce_source`: with `ce_id` it names an event in the world."""

_POSITION, _PREVIOUS = "position", "previous"
_VERSION = ("ce_specversion", b"1.0")
_SOURCE = ("ce_source", SOURCE.encode())
_JSON = ("content-type", b"application/json")


class _Named(msgspec.Struct, gc=False):
    id: str
    type: str
    org: str
    traceparent: str | None = None


_named = msgspec.json.Decoder(_Named).decode


def describe(body: bytes) -> tuple[bytes | None, Headers]:
    """Key (the organization) and headers of an envelope's bytes. Bytes that are none have neither."""
    try:
        named = _named(body)
    except msgspec.MsgspecError:
        return None, []
    headers: Headers = [_VERSION, _SOURCE, ("ce_id", named.id.encode()), ("ce_type", named.type.encode()), _JSON]
    if named.traceparent is not None:
        headers.append(("traceparent", named.traceparent.encode()))
    return named.org.encode(), headers


def link(position: int, previous: int) -> Headers:
    """The link of a control record: its journal position and the one before. They come first among its headers."""
    return [(_POSITION, b"%d" % position), (_PREVIOUS, b"%d" % previous)]


def linked(headers: Sequence[tuple[str, bytes]]) -> tuple[int, int]:
    """Position and previous position of a record; zeros if it is no link of a chain."""
    if len(headers) < 2 or headers[0][0] != _POSITION or headers[1][0] != _PREVIOUS:
        return 0, 0
    return int(headers[0][1]), int(headers[1][1])
