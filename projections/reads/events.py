"""All events of an organization, or of all, after a place: control events and facts, merged by time.

The two flows have no order between them; a place is a vector, so nothing is passed over and nothing comes twice. An event
that was parked comes to its view later, and may then be missing here.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from heapq import merge
from itertools import islice
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from domain.errors import invalid
from domain.ids import PARTITIONS, partition_of
from projections.reads.audit import AuditTrail, event_of

_PLACE = re.compile(r"j(\d{1,18})((?:\.f\d{1,3}-\d{1,18})*)")
_PART = re.compile(r"\.f(\d{1,3})-(\d{1,18})")


class Place(Struct, frozen=True):
    """Everything up to journal position `journal`, and below the offset of each partition, was seen."""

    journal: int = 0
    offsets: Mapping[int, int] = {}

    def __str__(self) -> str:
        return f"j{self.journal}" + "".join(f".f{p}-{offset}" for p, offset in sorted(self.offsets.items()))


def parse_place(text: str) -> Place:
    """The place of ``str(place)``. Raises `Invalid`."""
    match = _PLACE.fullmatch(text)
    offsets = {} if match is None else {int(p): int(offset) for p, offset in _PART.findall(match[2])}
    if match is None or any(p >= PARTITIONS for p in offsets):
        raise invalid("after", f"must be a cursor that a list of events answered; got {text!r:.80}")
    return Place(int(match[1]), offsets)


class LoggedFact(Struct, frozen=True):
    """A fact in the log, as stored."""

    partition: int
    offset: int
    time: datetime
    body: str


class Facts(Protocol):
    """Facts in the live version of the usage view. Synchronous; any thread. Raises `Unavailable`."""

    def after(self, org: str | None, offsets: Mapping[int, int], limit: int) -> Sequence[LoggedFact]:
        """At most `limit` facts (of one organization, or all), by partition at or beyond its offset, oldest first within
        each; partitions not named are left out."""

    def find_event(self, event: str) -> LoggedFact | None:
        """The fact with this event id. Looks at every fact there is."""


class Seen(Struct, frozen=True):
    """One event as JSON value, and the place after it."""

    event: dict[str, Any]
    place: Place


class Events:
    """The merged list."""

    def __init__(self, audit: AuditTrail, facts: Facts) -> None:
        self._audit, self._facts = audit, facts

    def after(self, org: str | None, place: Place, limit: int) -> Sequence[Seen]:
        """At most `limit` events after `place`, each with the place to go on from."""
        chosen = range(PARTITIONS) if org is None else [partition_of(org)]
        offsets = {p: place.offsets.get(p, 0) for p in chosen}
        flows: list[list[_Step]] = [
            [
                _Step(deed.time, event_of(deed), deed.position, -1)
                for deed in self._audit.after(org, place.journal, limit)
            ]
        ]
        for partition in chosen:
            facts = self._facts.after(org, {partition: offsets[partition]}, limit)
            flows.append([_Step(f.time, msgspec.json.decode(f.body), f.offset + 1, f.partition) for f in facts])
        seen: list[Seen] = []
        journal = place.journal
        for step in islice(merge(*flows, key=lambda step: step.time), limit):
            if step.partition < 0:
                journal = step.next
            else:
                offsets[step.partition] = step.next
            seen.append(Seen(step.event, Place(journal, dict(offsets))))
        return seen

    def find(self, event: str) -> dict[str, Any] | None:
        """One event by its id."""
        deed = self._audit.find(event)
        if deed is not None:
            return event_of(deed)
        fact = self._facts.find_event(event)
        return None if fact is None else msgspec.json.decode(fact.body)


class _Step(Struct, frozen=True):
    """`next` is the position or offset after it, `partition` -1 for control events."""

    time: datetime
    event: dict[str, Any]
    next: int
    partition: int
