"""A view and its parking lot in memory."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from msgspec.structs import replace

from domain.errors import NotFound, Unavailable
from projections.ports import Batch, Event, Fingerprint, Mark, Outcome, Parked, Poisoned


@dataclass
class MemoryParking:
    """See `projections.ports.Parking`."""

    kept: dict[str, Parked] = field(default_factory=dict)

    def park(self, parked: Sequence[Parked]) -> None:
        for one in parked:
            known = self.kept.setdefault(one.id, one)
            if one.error is not None:
                self.kept[one.id] = replace(known, error=one.error)

    def parked(self, projection: str | None = None, *, dropped: bool = False) -> Sequence[Parked]:
        found = [p for p in self.kept.values() if p.dropped == dropped and projection in (None, p.projection)]
        return sorted(found, key=lambda p: (p.projection, p.record.partition, p.record.offset))

    def first(self, projection: str) -> Sequence[Parked]:
        first: dict[tuple[int, str], Parked] = {}
        for parked in self.parked(projection):
            first.setdefault((parked.record.partition, parked.org), parked)
        return list(first.values())

    def get(self, id: str) -> Parked:
        if id not in self.kept or self.kept[id].dropped:
            raise NotFound(id)
        return self.kept[id]

    def release(self, id: str) -> None:
        del self.kept[id]

    def drop(self, id: str) -> None:
        self.kept[id] = replace(self.kept[id], dropped=True)


class MemorySink:
    """Keeps what it was given; `refuse` names offsets it cannot take in."""

    def __init__(self) -> None:
        self.held: list[tuple[str, int, int]] = []
        self.at: dict[int, Mark] = {}
        self.refuse: set[int] = set()
        self.down = False

    def marks(self) -> dict[int, Mark]:
        return dict(self.at)

    def apply(self, batch: Batch) -> Outcome:
        if self.down:
            raise Unavailable("store is down")
        if any(self.at.get(span.partition, Mark()) != span.start for span in batch.spans):
            return Outcome.STALE
        self._check([event for span in batch.spans for event in span.events])
        for span in batch.spans:
            self.held += [_place(event) for event in span.events]
            self.at[span.partition] = span.end
        return Outcome.APPLIED

    def running_ahead(self) -> AbstractContextManager[object]:
        return nullcontext()

    def replay(self, event: Event) -> None:
        self._check([event])
        self.held.append(_place(event))

    def _check(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.offset in self.refuse:
                raise Poisoned(event, ValueError("refused"))

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.at, str(self.held))

    def close(self) -> None:
        pass


def _place(event: Event) -> tuple[str, int, int]:
    return event.envelope.org, event.partition, event.offset
