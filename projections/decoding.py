"""From a record of the log to an event with a typed value. Records that are no event of ours raise `Poisoned`.

Of an undecodable record as much of the envelope is kept as can be read, so that it can be parked with its organization.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from domain import envelope as wire
from domain.envelope import StoredEnvelope
from domain.errors import UndecodableEvent
from domain.registry import decode_event
from projections.ports import Event, Poisoned, Record

Decode = Callable[[Record], Event]


class _Glimpse(Struct):
    type: str = ""
    org: str = ""


_glimpse = msgspec.json.Decoder(_Glimpse).decode
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)


def decode(record: Record) -> Event:
    """The event of `record`. Raises `Poisoned` (its event has no value)."""
    try:
        envelope = wire.decode(record.value)
        value = decode_event(envelope)
    except (msgspec.MsgspecError, UndecodableEvent, UnicodeDecodeError) as error:
        raise Poisoned(_unreadable(record), error) from error
    return Event(record.partition, record.offset, record.position, envelope, value, record.value)


def _unreadable(record: Record) -> Event:
    try:
        seen = _glimpse(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        seen = _Glimpse()
    envelope = StoredEnvelope(id="", type=seen.type, org=seen.org, stream="", occurred_at=_UNKNOWN, data=msgspec.Raw())
    return Event(record.partition, record.offset, record.position, envelope, None, record.value)
