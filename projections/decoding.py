"""From a record of the log to an event with a typed value. Records that are no event of ours raise `Poisoned`.

A projection may say what it looks at: the rest of such an event is passed over unread, and is `UNSET` in what comes out. So
a fact is poison for those only who need what is wrong with it.
Of an undecodable record as much of the envelope is kept as can be read, so that it can be parked with its organization.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from domain import envelope as wire
from domain.envelope import Envelope, StoredEnvelope
from domain.errors import UndecodableEvent
from domain.facts import FACTS, BudgetHold
from domain.registry import SCHEMAS, decode_event
from projections.ports import Event, Poisoned, Record

Decode = Callable[[Record], Event]

Looks = Mapping[Any, Collection[str]]
"""The fields that are looked at, by the shape of a fact, or of `BudgetHold` within one."""


class _Glimpse(Struct):
    type: str = ""
    org: str = ""


_glimpse = msgspec.json.Decoder(_Glimpse).decode
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)

_TYPE, _TYPE_WITHIN = b'"type":"', 128
_ENVELOPE = ("type", "schema", "org", "occurred_at", "data")


def decode(record: Record) -> Event:
    """The event of `record`, whole. Raises `Poisoned` (its event has no value)."""
    try:
        envelope = wire.decode(record.value)
        value = decode_event(envelope)
    except (msgspec.MsgspecError, UndecodableEvent, UnicodeDecodeError) as error:
        raise Poisoned(_unreadable(record), error) from error
    return Event(record.partition, record.offset, record.position, envelope, value, record.value)


def looking_at(looks: Looks) -> Decode:
    """As `decode`, for facts, in one pass: of shapes in `looks` no more than is named there, and of their envelopes type,
    organization and time. What is of another schema, or cannot be read, is left to `decode`."""
    decoders = {name.encode(): (name, _decoder(shape, looks)) for name, shape in FACTS.items() if shape in looks}

    def decoded(record: Record) -> Event:
        value = record.value
        start = value.find(_TYPE, 0, _TYPE_WITHIN) + len(_TYPE)
        name, whole = decoders.get(value[start : value.find(b'"', start)], _NOBODY)
        if whole is None:
            return decode(record)
        try:
            envelope = whole(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return decode(record)
        if envelope.type != name or envelope.schema != SCHEMAS[name]:
            return decode(record)
        return Event(record.partition, record.offset, record.position, envelope, envelope.data, value)

    return decoded


_NOBODY = ("", None)


def _decoder(shape: type[Struct], looks: Looks) -> Callable[[bytes], Any]:
    narrow = _narrowed(shape, looks[shape])
    if "budgets" in looks[shape] and BudgetHold in looks:
        hold: Any = _narrowed(BudgetHold, looks[BudgetHold])
        narrow = msgspec.defstruct(
            shape.__name__, [("budgets", tuple[hold, ...], ())], bases=(narrow,), frozen=True, kw_only=True, gc=False
        )
    head = _narrowed(Envelope, _ENVELOPE)
    whole = msgspec.defstruct("Whole", [("data", narrow)], bases=(head,), frozen=True, kw_only=True, gc=False)
    return msgspec.json.Decoder(whole).decode


def _narrowed(shape: type[Struct], looked_at: Collection[str]) -> type[Struct]:
    """A kind of `shape` that reads the fields `looked_at` only: the names of the others are none that is ever written."""
    unseen = [field.name for field in structs.fields(shape) if field.name not in looked_at]
    return msgspec.defstruct(
        shape.__name__,
        [(name, UnsetType, UNSET) for name in unseen],
        bases=(shape,),
        rename={name: f"(unseen) {name}" for name in unseen},
        frozen=True,
        kw_only=True,
        gc=False,
    )


def _unreadable(record: Record) -> Event:
    try:
        seen = _glimpse(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        seen = _Glimpse()
    envelope = StoredEnvelope(id="", type=seen.type, org=seen.org, stream="", occurred_at=_UNKNOWN, data=msgspec.Raw())
    return Event(record.partition, record.offset, record.position, envelope, None, record.value)
