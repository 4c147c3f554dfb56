"""The envelope every event travels in, control events and facts alike, and its JSON form (stored format).

The envelope's `data` stays undecoded until somebody needs it: `domain.registry` knows the shape of each type.
"""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as stored.

    `id` is a UUIDv7 id (``evt_…``), `type` a stable name, `schema` the version of its shape, `stream` ``org/kind/id``,
    `version` the place in its stream (control events only), `occurred_at` UTC with microseconds, `actor` who caused it
    (an admin key id, ``system``, or a service key id), `traceparent` the W3C trace context it happened in, if any.
    """

    id: str
    type: str
    schema: int = 1
    org: str
    stream: str
    version: int = 0
    occurred_at: datetime
    correlation_id: str | None = None
    causation_id: str | None = None
    command_id: str | None = None
    actor: str | None = None
    traceparent: str | None = None
    data: Any


class StoredEnvelope(Envelope, frozen=True, kw_only=True, omit_defaults=True):
    """An envelope as read: `data` is the undecoded JSON of the event."""

    data: msgspec.Raw | UnsetType = UNSET


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(StoredEnvelope)

encode = _encoder.encode
"""The stored bytes of an `Envelope` (one line of JSON: it contains no raw newline)."""

decode = _decoder.decode
"""`StoredEnvelope` of stored bytes. Raises `msgspec.DecodeError` or `msgspec.ValidationError`."""
