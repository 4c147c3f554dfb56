"""How far the views are: whether one has what a position token names, and up to when it surely is complete.

Guarantees: an answer computed after `standing` was asked holds everything that happened up to its `as_of`, as far as the
log had it when it was looked at. Not promised: anything about what is on its way to the log.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
from msgspec import Struct

from domain import envelope as wire
from domain.errors import invalid
from domain.ids import PARTITIONS, partition_of
from projections.ports import CONTROL, Mark, Parked, Parking, Record

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


class Tail(Protocol):
    """Where a topic ends, and single records. Any thread. Raises `LogUnavailable`."""

    partitions: int

    def end(self, partition: int) -> int:
        """The next offset of a partition, as of now."""

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """See `projections.ports.LogReader`."""


class Looked(Struct, frozen=True):
    """What the log held at the moment `now`: by view the end of each partition that concerns who asked, `org` None: all."""

    now: datetime
    org: str | None
    ends: Mapping[str, Mapping[int, int]]


class Freshness:
    """Asks the engines of the views (by name) and the log. `readers` by topic. Any thread."""

    def __init__(
        self,
        engines: Mapping[str, Watched],
        readers: Mapping[str, Tail],
        parking: Parking,
        clock: Callable[[], datetime],
    ) -> None:
        self._engines, self._readers, self._parking, self._clock = engines, readers, parking, clock

    @property
    def names(self) -> list[str]:
        """Every view."""
        return list(self._engines)

    def have(self, view: str, wanted: Sequence[Sequence[Position]]) -> list[bool]:
        """Of each of `wanted` whether the view has all of its positions: journal positions concern views of control events,
        the others views of facts. Raises `Unavailable`."""
        engine = self._engines[view]
        marks = engine.marks()
        return [_have(marks, [p for p in positions if _concerns(p, engine.topic)]) for positions in wanted]

    def concerned(self, views: Iterable[str], positions: Iterable[Position]) -> list[str]:
        """Those of `views` that some of `positions` concern."""
        wanted = list(positions)
        return [view for view in views if any(_concerns(p, self._engines[view].topic) for p in wanted)]

    def ends(self, org: str | None = None) -> list[Position]:
        """What is in the log now: the last record of each facts partition (of the organization's, if there is one)."""
        facts = next(topic for topic in self._readers if topic != CONTROL)
        ends = self._ends(facts, org)
        return [Position(partition=p, offset=end - 1) for p, end in ends.items() if end]

    def look(self, views: Iterable[str], org: str | None = None) -> Looked:
        """Where the log ends, as far as it concerns `views` (and the organization)."""
        now = self._clock()
        topics = {view: self._engines[view].topic for view in views}
        ends = {topic: self._ends(topic, org) for topic in set(topics.values())}
        return Looked(now, org, {view: ends[topic] for view, topic in topics.items()})

    def standing(self, looked: Looked) -> Standing:
        """As of then if the views have by now all that the log had, else as of the first event that is missing or parked."""
        moments = [looked.now]
        for view, ends in looked.ends.items():
            moments += self._missing(self._engines[view], ends)
            moments += [
                _waiting_since(parked)
                for parked in self._parking.parked(view)
                if looked.org is None or parked.org in ("", looked.org)
            ]
        return Standing(min(moments), looked.now)

    def lag(self, view: str) -> int:
        """How many records of the log are not in the view yet."""
        engine = self._engines[view]
        marks = engine.marks()
        ends = self._ends(engine.topic, None)
        return sum(max(0, end - marks.get(p, Mark()).offset) for p, end in ends.items())

    def _ends(self, topic: str, org: str | None) -> dict[int, int]:
        reader = self._readers[topic]
        chosen = range(reader.partitions) if org is None or topic == CONTROL else [partition_of(org)]
        return {partition: reader.end(partition) for partition in chosen}

    def _missing(self, engine: Watched, ends: Mapping[int, int]) -> Iterator[datetime]:
        """When the first event happened that each partition lacks."""
        marks = engine.marks()
        for partition, end in ends.items():
            at = marks.get(partition, Mark()).offset
            if at < end:
                yield from map(_happened, self._readers[engine.topic].read(partition, at, 1)[:1])


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
