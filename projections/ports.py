"""What the projections need from outside. Adapters live in `infra.adapters`; suites in `tests/contract`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

from msgspec import Struct

from domain.envelope import Envelope

CONTROL = "tollhouse.control.v1"
"""Topic of control events: one partition, chained records. Stored format."""

FACTS = "tollhouse.facts.v1"
"""Topic of facts: `domain.ids.PARTITIONS` partitions, keyed by organization. Stored format."""


class Record(Struct, frozen=True):
    """One record of a topic. Control records carry their journal position and the one before it (`previous`): a reader
    accepts only what continues the chain it has accepted so far, and ignores every other record."""

    partition: int
    offset: int
    value: bytes
    position: int = 0
    previous: int = 0


class LogReader(Protocol):
    """Reads one topic. Synchronous and safe to use from any one thread at a time."""

    topic: str
    partitions: int

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """Records from `offset` on, in order: at most about `limit` (a whole stored batch may pass it), empty at the end."""

    def ends(self) -> Sequence[int]:
        """The next offset of each partition, as of now."""

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        """Returns True once some partition's end is past `seen`, False when `timeout` seconds went by without that."""

    def close(self) -> None:
        """Gives up what it holds open."""


Vector = Mapping[int, int]
"""A watermark: per partition the next offset, everything below it is in the view."""


class Event(Struct, frozen=True, gc=False):
    """A record, decoded. `value` is the fact or control event in its current shape, `body` the stored bytes. Fields that the
    projection does not look at may be `UNSET`."""

    partition: int
    offset: int
    position: int
    envelope: Envelope
    value: Any
    body: bytes


class Mark(Struct, frozen=True):
    """How far a view is in one partition: the next `offset`, the journal `position` of the last control record accepted,
    and how many `events` it has taken in."""

    offset: int = 0
    position: int = 0
    events: int = 0


class Span(Struct, frozen=True):
    """Part of one partition: what a batch moves the view from and to, and the events of it that are to be applied."""

    partition: int
    start: Mark
    end: Mark
    events: Sequence[Event]


class Batch(Struct, frozen=True):
    """What is applied at once. `held_back` are the organizations whose events are parked."""

    spans: Sequence[Span]
    held_back: frozenset[str] = frozenset()


class Outcome(Enum):
    """What became of a batch: applied, in the view already, or not following on what the view holds (nothing was done)."""

    APPLIED = "applied"
    ALREADY = "already"
    STALE = "stale"


class Poisoned(Exception):
    """An event that a projection cannot take in. Nothing of its batch was applied."""

    def __init__(self, event: Event, error: Exception) -> None:
        what = f"{event.envelope.type} of {event.envelope.org or 'nobody'} at {event.partition}.{event.offset}"
        super().__init__(f"{what}: {type(error).__name__}: {error}")
        self.event = event


class Fingerprint(Struct, frozen=True):
    """A view at a watermark, in one snapshot: SHA-256 or as strong a digest of its rows, which order does not change."""

    marks: Mapping[int, Mark]
    digest: str

    @property
    def events(self) -> int:
        return sum(mark.events for mark in self.marks.values())


class Sink(Protocol):
    """One version of a view. Rows and watermark change together. Raises `Unavailable` when the store does not answer."""

    def marks(self) -> Mapping[int, Mark]:
        """The watermark: partitions not named are at the beginning."""

    def apply(self, batch: Batch) -> Outcome:
        """Compare-and-set: applies `batch` if the view is where every span starts. Raises `Poisoned`."""

    def running_ahead(self) -> AbstractContextManager[object]:
        """Meanwhile a batch may count as applied before it is in: for a version that nobody reads or feeds but who asks for
        this. Once the context is left all of it is in; what went wrong is raised then, or by a later batch."""

    def replay(self, event: Event) -> None:
        """Applies an event that was parked; the watermark stays. Twice is once. Raises `Poisoned`."""

    def fingerprint(self) -> Fingerprint:
        """What the view holds, for comparing."""

    def close(self) -> None:
        """Gives up connections; the view stays."""


class Store(Protocol):
    """The versions of one view. Exactly one is live: reads use it."""

    name: str
    topic: str

    def live(self) -> int:
        """The version in use; the first call makes it."""

    def marks(self) -> Mapping[int, Mark]:
        """The watermark of the live version, as of now: empty before the first."""

    def create(self) -> int:
        """A new, empty version beside the live one."""

    def open(self, version: int) -> Sink:
        """A sink of its own, to be used by one thread at a time."""

    def switch(self, version: int) -> None:
        """Makes `version` live, in one transaction; the old one goes. Raises `Conflict` if the new is behind it anywhere."""

    def drop(self, version: int) -> None:
        """Forgets a version that is not live."""

    def standing_still(self, version: int) -> AbstractContextManager[object]:
        """No other process applies anything to `version` meanwhile, for seconds at most."""


class Parked(Struct, frozen=True, kw_only=True):
    """An event taken out of a projection's way. `error` says why it could not be taken in; `error` None: only because an
    earlier event of its organization is parked. `dropped`: given up by an admin, and left out of rebuilds too."""

    id: str
    projection: str
    org: str
    type: str
    record: Record
    error: str | None
    parked_at: datetime
    dropped: bool = False


class Parking(Protocol):
    """Parked events of all projections."""

    def park(self, parked: Sequence[Parked]) -> None:
        """Keeps them; one that is kept already takes on the new error, if there is one."""

    def parked(self, projection: str | None = None, *, dropped: bool = False) -> Sequence[Parked]:
        """In order of projection, partition and offset: those that wait, or those that were dropped."""

    def first(self, projection: str) -> Sequence[Parked]:
        """Of each organization in each partition the first that waits."""

    def get(self, id: str) -> Parked:
        """Raises `NotFound`."""

    def release(self, id: str) -> None:
        """It was applied after all."""

    def drop(self, id: str) -> None:
        """It is given up; rebuilds leave it out."""
