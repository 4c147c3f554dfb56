"""The audit view: every control event with who did it, the state before and after, and a hash chain over the stored bytes.

The hash of an entry is SHA-256 of the hash before it and the event's bytes, in the order entries were made (`number`), which
is the journal's unless an event was parked. So whoever changes, adds or takes away an entry has to change all later ones.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from domain.errors import UndecodableEvent
from projections.directory import Entry, Gap, evolve
from projections.ports import Event, Poisoned

NAME = "audit"
"""Stored format: it is part of table names."""

GENESIS = "0" * 64
"""The hash before the first."""

SECRETS = frozenset({"hash", "hashes", "superseded", "credential"})
"""Fields of states and events that nobody is shown, though they hold keyed hashes and ciphertext only."""


class AuditRow(Struct, kw_only=True, array_like=True):
    """A row of the table of entries, columns in order. Stored format. `before` and `after` are JSON, empty for nothing."""

    partition: int
    offset: int
    number: int
    position: int
    id: str
    org: str
    stream: str
    kind: str
    resource: str
    version: int
    type: str
    time: datetime
    actor: str
    command_id: str
    correlation_id: str
    before: str
    after: str
    body: str
    previous: str
    hash: str


class Tail(Struct, frozen=True):
    """The end of the chain."""

    number: int = 0
    hash: str = GENESIS


def project(events: Iterable[Event], tail: Tail, entries: Mapping[str, Entry]) -> list[AuditRow]:
    """The rows of `events`, given the end of the chain and the state of their streams before. Raises `Poisoned`."""
    rows: list[AuditRow] = []
    states = dict(entries)
    for event in events:
        before = states.get(event.envelope.stream)
        try:
            row = _row(event, tail, before, evolve(before, event) or before)
        except (UndecodableEvent, Gap, TypeError, ValueError, KeyError, AttributeError) as error:
            raise Poisoned(event, error) from error
        rows.append(row)
        states[row.stream] = entry(row.stream, row.version, row.after.encode())
        tail = Tail(row.number, row.hash)
    return rows


def entry(stream: str, version: int, state: bytes) -> Entry:
    """A stream's state as an audit row keeps it."""
    org, kind, id = stream.split("/", 2)
    return Entry(
        stream=stream,
        kind=kind,
        org=org,
        id=id,
        version=version,
        state=state,
        removed=False,
        created_at="",
        changed_at="",
    )


def link(previous: str, body: bytes) -> str:
    """The hash of the entry with `body` after the one with the hash `previous`."""
    return hashlib.sha256(bytes.fromhex(previous) + body).hexdigest()


class Link(Struct, frozen=True, array_like=True):
    """What verifying needs of an entry."""

    number: int
    body: str
    previous: str
    hash: str


class ChainCheck(Struct, frozen=True, kw_only=True):
    """`entries` that hold, and the number of the first that does not (None: all hold). `head` is the last good hash."""

    entries: int
    broken_at: int | None
    head: str


def verify(links: Iterable[Link]) -> ChainCheck:
    """Recomputes the chain over all entries, given in order."""
    good, head = 0, GENESIS
    for found in links:
        if found.number != good + 1 or found.previous != head or found.hash != link(head, found.body.encode()):
            return ChainCheck(entries=good, broken_at=good + 1, head=head)
        good, head = good + 1, found.hash
    return ChainCheck(entries=good, broken_at=None, head=head)


def shown(state: str) -> Any:
    """The JSON of `before` or `after` as people may see it, None for nothing."""
    return None if not state else _without_secrets(msgspec.json.decode(state))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(field) for name, field in value.items() if name not in SECRETS}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


def _row(event: Event, tail: Tail, before: Entry | None, after: Entry | None) -> AuditRow:
    envelope = event.envelope
    org, kind, resource = envelope.stream.split("/", 2)
    return AuditRow(
        partition=event.partition,
        offset=event.offset,
        number=tail.number + 1,
        position=event.position,
        id=envelope.id,
        org=org,
        stream=envelope.stream,
        kind=kind,
        resource=resource,
        version=envelope.version,
        type=envelope.type,
        time=envelope.occurred_at,
        actor=envelope.actor or "",
        command_id=envelope.command_id or "",
        correlation_id=envelope.correlation_id or "",
        before="" if before is None else before.state.decode(),
        after="" if after is None else after.state.decode(),
        body=event.body.decode(),
        previous=tail.hash,
        hash=link(tail.hash, event.body),
    )
