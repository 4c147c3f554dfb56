"""The directory view: the current state of every stream of control events, by the aggregates' own `evolve`.

Pure. What one event makes of a stream depends on that stream only; an event that is in already changes nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from domain.errors import UndecodableEvent
from domain.registry import STATES, evolve_stream, is_removed
from projections.ports import Event, Poisoned

NAME = "directory"
"""Stored format: it is part of table names."""

_decoders = {kind: msgspec.json.Decoder(state) for kind, state in STATES.items()}
_encode = msgspec.json.Encoder().encode


class Entry(Struct, frozen=True, kw_only=True):
    """A stream at a `version`. `created_at` and `changed_at` are times of its first and last event."""

    stream: str
    kind: str
    org: str
    id: str
    version: int
    state: bytes
    removed: bool
    created_at: str
    changed_at: str

    def value(self) -> Any:
        """The aggregate's state, typed."""
        return state_of(self.kind, self.state)


class Gap(Exception):
    """An event that does not follow on the stream's version: one before it is missing."""


def state_of(kind: str, state: bytes) -> Any:
    """The typed state of its JSON."""
    return _decoders[kind].decode(state)


def fold(entries: Mapping[str, Entry], events: Iterable[Event]) -> dict[str, Entry]:
    """The entries that `events` change, given those of their streams (`entries`) before. Raises `Poisoned`."""
    changed: dict[str, Entry] = {}
    for event in events:
        stream = event.envelope.stream
        try:
            entry = evolve(changed.get(stream) or entries.get(stream), event)
        except (UndecodableEvent, Gap, TypeError, ValueError, KeyError, AttributeError) as error:
            raise Poisoned(event, error) from error
        if entry is not None:
            changed[stream] = entry
    return changed


def evolve(entry: Entry | None, event: Event) -> Entry | None:
    """The stream's entry after `event`, None if the event is in `entry` already. Raises `Gap`, `UndecodableEvent`."""
    envelope = event.envelope
    version = 0 if entry is None else entry.version
    if envelope.version <= version:
        return None
    if envelope.version != version + 1:
        raise Gap(f"{envelope.stream}: version {envelope.version} does not follow on {version}")
    org, kind, id = envelope.stream.split("/", 2)
    state = evolve_stream(kind, None if entry is None else entry.value(), event.value)
    at = envelope.occurred_at.isoformat()
    return Entry(
        stream=envelope.stream,
        kind=kind,
        org=org,
        id=id,
        version=envelope.version,
        state=_encode(state),
        removed=is_removed(state),
        created_at=at if entry is None else entry.created_at,
        changed_at=at,
    )
