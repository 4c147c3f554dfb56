"""How far the views are: whether one has what a position token names, and up to when it surely is complete.

Guarantees: an answer computed after `standing` was asked holds everything that happened up to its `as_of`, as far as the
log had it then. Not promised: anything about what is on its way to the log.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
from msgspec import Struct

from domain import envelope as wire
from domain.errors import invalid
from domain.ids import PARTITIONS, partition_of
from projections.ports import CONTROL, LogReader, Mark, Parked, Parking, Record

_TOKEN = re.compile(r"j(\d{1,18})|f(\d{1,3})\.(\d{1,18})")
_HEADER = "x-tollhouse-position"


class Position(Struct, frozen=True):
    """Where an answer left its mark: a `journal` position, or an `offset` of a facts `partition`."""

    journal: int = 0
    partition: int | None = None
    offset: int = 0


def parse_position(token: str) -> Position:
    """The position of a token such as ``j17`` or ``f3.120``. Raises `Invalid`."""
    match = _TOKEN.fullmatch(token.strip())
    if match is None or (match[2] is not None and int(match[2]) >= PARTITIONS):
        raise invalid(_HEADER, f"must be a position that an answer gave, like j17 or f3.120; got {token!r:.40}")
    if match[1] is not None:
        return Position(journal=int(match[1]))
    return Position(partition=int(match[2]), offset=int(match[3]))


class Standing(Struct, frozen=True):
    """`as_of`: everything that happened before it is in; `now` when that was asked."""

    as_of: datetime
    now: datetime

    @property
    def lag_ms(self) -> int:
        """Milliseconds between the two."""
        return max(0, (self.now - self.as_of) // timedelta(milliseconds=1))


class Watched(Protocol):
    """A view: its engine, or what its store tells (`projections.stored_view`). `marks` may raise `Unavailable`."""

    name: str
    topic: str

    def marks(self) -> Mapping[int, Mark]:
        """The watermark."""


class Freshness:
    """Asks the engines of the views (by name) and the log. `readers` by topic. Any thread."""

    def __init__(
        self,
        engines: Mapping[str, Watched],
        readers: Mapping[str, LogReader],
        parking: Parking,
        clock: Callable[[], datetime],
    ) -> None:
        self._engines, self._readers, self._parking, self._clock = engines, readers, parking, clock

    @property
    def names(self) -> list[str]:
        """Every view."""
        return list(self._engines)

    def have(self, views: Iterable[str], positions: Sequence[Position]) -> bool:
        """Whether each of `views` has those of `positions` that concern it: journal positions concern views of control
        events, the others views of facts. Raises `Unavailable`."""
        for view in views:
            concerning = [position for position in positions if _concerns(position, self._engines[view].topic)]
            if concerning and not _have(self._engines[view].marks(), concerning):
                return False
        return True

    def ends(self, org: str | None = None) -> list[Position]:
        """What is in the log now: the last record of each facts partition (of the organization's, if there is one)."""
        facts = next(reader for topic, reader in self._readers.items() if topic != CONTROL)
        chosen = range(facts.partitions) if org is None else [partition_of(org)]
        ends = facts.ends()
        return [Position(partition=p, offset=ends[p] - 1) for p in chosen if ends[p]]

    def standing(self, views: Iterable[str], org: str | None = None) -> Standing:
        """As of now if `views` have all that the log has (of the organization's partition), else as of the first event
        that is missing or parked."""
        now = self._clock()
        return Standing(min((self._complete(self._engines[view], org, now) for view in views), default=now), now)

    def lag(self, view: str) -> int:
        """How many records of the log are not in the view yet."""
        engine = self._engines[view]
        marks = engine.marks()
        ends = self._readers[engine.topic].ends()
        return sum(max(0, end - marks.get(p, Mark()).offset) for p, end in enumerate(ends))

    def _complete(self, engine: Watched, org: str | None, now: datetime) -> datetime:
        reader = self._readers[engine.topic]
        ends, marks = reader.ends(), engine.marks()
        chosen = range(reader.partitions) if org is None or engine.topic == CONTROL else [partition_of(org)]
        moments = [now]
        for partition in chosen:
            at = marks.get(partition, Mark()).offset
            if at < ends[partition]:
                moments += [_happened(record) for record in reader.read(partition, at, 1)[:1]]
        for parked in self._parking.parked(engine.name):
            if org is None or parked.org in ("", org):
                moments.append(_waiting_since(parked))
        return min(moments)


def _concerns(position: Position, topic: str) -> bool:
    return (position.partition is None) == (topic == CONTROL)


def _have(marks: Mapping[int, Mark], positions: Sequence[Position]) -> bool:
    return all(
        marks.get(0, Mark()).position >= position.journal
        if position.partition is None
        else marks.get(position.partition, Mark()).offset > position.offset
        for position in positions
    )


def _happened(record: Record) -> datetime:
    """A record that cannot be read happened at an unknown time: the view is complete up to nothing."""
    try:
        return wire.decode(record.value).occurred_at
    except msgspec.MsgspecError:
        return datetime(1970, 1, 1, tzinfo=UTC)


def _waiting_since(parked: Parked) -> datetime:
    try:
        return wire.decode(parked.record.value).occurred_at
    except msgspec.MsgspecError:
        return parked.parked_at
