"""Feeds one version of one view from the log: each record takes effect once, in order, whatever is delivered again.

1. Records are decoded. 2. Those below the sink's watermark are dropped; of control records only those are taken that continue
the chain. 3. The sink applies them with the watermark, by compare-and-set. 4. An event that cannot be taken
in is treated by the projection's policy, and the rest of the batch goes on.
Not promised: anything about the order between partitions, or between topics.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import Enum

from msgspec import Struct, structs

from domain.errors import Conflict, NotFound, ViewBehind
from projections.looks import decoding_of
from projections.ports import CONTROL, Batch, Event, Mark, Outcome, Parked, Parking, Poisoned, Record, Sink, Span

Clock = Callable[[], datetime]


class Policy(Enum):
    """What to do about an event that a projection cannot take in."""

    PARK_ORG = "park the event and, to keep their order, every later one of its organization"
    PARK_ONE = "park the event and go on"
    STOP = "raise it"


class Decoded(Struct, frozen=True):
    """Records with what they are, one for one: an event, or why there is none."""

    records: Sequence[Record]
    events: Sequence[Event | Poisoned]


class Engine:
    """One projection at work. Every method may be called from any thread."""

    def __init__(self, name: str, topic: str, sink: Sink, parking: Parking, policy: Policy, clock: Clock) -> None:
        self.name, self.topic = name, topic
        self._sink, self._parking, self._policy, self._clock = sink, parking, policy, clock
        self._decode = decoding_of(name)
        self._lock = threading.RLock()
        self._moved = threading.Condition()
        self._marks = dict(sink.marks())
        self._blocked = self._blocking()
        self._dropped = self._given_up()
        self._idle: set[str] = set()

    # ------------------------------------------------------------ feeding

    def feed(self, records: Sequence[Record]) -> Outcome:
        """Takes in records, in order within each partition. Raises `Unavailable` (nothing of them is applied then), and
        `Poisoned` if the policy is to stop."""
        return self.take(self.decoded(records))

    def decoded(self, records: Sequence[Record]) -> Decoded:
        """`records` for `take`: nobody need wait for anything here."""
        return Decoded(records, list(map(self._seen, records)))

    def _seen(self, record: Record) -> Event | Poisoned:
        try:
            return self._decode(record)
        except Poisoned as poison:
            return poison

    def take(self, decoded: Decoded) -> Outcome:
        """As `feed`."""
        with self._lock:
            batch = self._batch(decoded)
            while True:
                if not batch.spans:
                    return Outcome.ALREADY
                try:
                    outcome = self._sink.apply(batch)
                    break
                except Poisoned as poison:
                    self._give_way(poison)
                    batch = Batch([self._let_through(span) for span in batch.spans], self._held_back())
            if outcome is Outcome.APPLIED:
                marks = {**self._marks, **{span.partition: span.end for span in batch.spans}}
            else:
                marks = dict(self._sink.marks())
            self._move(marks)
            return outcome

    def _batch(self, decoded: Decoded) -> Batch:
        by_partition: dict[int, list[tuple[Record, Event | Poisoned]]] = {}
        for record, event in zip(decoded.records, decoded.events, strict=True):
            by_partition.setdefault(record.partition, []).append((record, event))
        spans = [self._span(partition, found) for partition, found in by_partition.items()]
        return Batch([span for span in spans if span.end != span.start], self._held_back())

    def _span(self, partition: int, found: Sequence[tuple[Record, Event | Poisoned]]) -> Span:
        start = self._marks.get(partition, Mark())
        offset, position, taken = start.offset, start.position, start.events
        events: list[Event] = []
        chained = self.topic == CONTROL
        for record, event in found:
            if record.offset < offset:
                continue
            offset = record.offset + 1
            if chained:
                if record.previous != position or record.position <= position:
                    continue
                position = record.position
            taken += 1
            if isinstance(event, Poisoned):
                self._give_way(event)
            else:
                events.append(event)
        return self._let_through(Span(partition, start, Mark(offset, position, taken), events))

    def _let_through(self, span: Span) -> Span:
        """`span` without what is parked: the events given way to, and those held back behind them."""
        if not self._blocked and not self._dropped:
            return span
        through: list[Event] = []
        behind: list[Event] = []
        for event in span.events:
            if (event.partition, event.offset) in self._dropped:
                continue
            first = self._blocked.get((event.partition, event.envelope.org))
            if first is None or event.offset < first:
                through.append(event)
            elif event.offset > first:
                behind.append(event)
        self._parking.park([self._parked(event, None) for event in behind])
        return Span(span.partition, span.start, span.end, through)

    # ------------------------------------------------------------ poison

    def _give_way(self, poison: Poisoned) -> None:
        """Parks the event, so that the next try goes without it."""
        event = poison.event
        if (event.partition, event.offset) in self._dropped:
            return
        if self._policy is Policy.STOP:
            raise poison
        self._parking.park([self._parked(event, str(poison))])
        if self._policy is Policy.PARK_ORG and event.envelope.org:
            place = (event.partition, event.envelope.org)
            self._blocked[place] = min(self._blocked.get(place, event.offset), event.offset)
        else:
            self._dropped.add((event.partition, event.offset))

    def _held_back(self) -> frozenset[str]:
        return frozenset(org for _, org in self._blocked)

    def _parked(self, event: Event, error: str | None) -> Parked:
        return Parked(
            id=f"{self.name}-{event.partition}-{event.offset}",
            projection=self.name,
            org=event.envelope.org,
            type=event.envelope.type,
            record=Record(event.partition, event.offset, event.body, event.position),
            error=error,
            parked_at=self._clock(),
        )

    def _blocking(self) -> dict[tuple[int, str], int]:
        """Per partition and organization the offset of its first parked event."""
        if self._policy is not Policy.PARK_ORG:
            return {}
        first = self._parking.first(self.name)
        return {(parked.record.partition, parked.org): parked.record.offset for parked in first if parked.org}

    def _given_up(self) -> set[tuple[int, int]]:
        """The places of what an admin dropped."""
        dropped = self._parking.parked(self.name, dropped=True)
        return {(parked.record.partition, parked.record.offset) for parked in dropped}

    def retry(self, id: str) -> int:
        """Applies a parked event and, where it held up its organization, the later ones up to the next that fails; answers
        how many. Raises `NotFound`, `Conflict` (``parked_earlier``, ``still_poisoned``)."""
        with self._lock:
            done, failed = self._replay(self._queue(id))
            if failed is not None and not done:
                raise Conflict(str(failed), code="still_poisoned") from failed
            return done

    def drop(self, id: str) -> None:
        """Gives a parked event up; what waited behind it is applied up to the next that fails. Raises as `retry`."""
        with self._lock:
            given_up, *behind = self._queue(id)
            self._parking.drop(id)
            self._dropped.add((given_up.record.partition, given_up.record.offset))
            self._replay(behind)

    def _replay(self, queue: Sequence[Parked]) -> tuple[int, Poisoned | None]:
        done, failed = 0, None
        for parked in queue:
            try:
                self._sink.replay(self._decode(parked.record))
            except Poisoned as poison:
                failed = poison
                self._parking.park([structs.replace(parked, error=str(poison))])
                break
            self._parking.release(parked.id)
            done += 1
        self._blocked = self._blocking()
        return done, failed

    def _queue(self, id: str) -> list[Parked]:
        """The event and, where it holds up its organization, all that waits behind it."""
        chosen = self._parking.get(id)
        if self._policy is not Policy.PARK_ORG or not chosen.org:
            return [chosen]
        queue = self._waiting(chosen)
        if not queue:
            raise NotFound(f"no parked event {id}")  # somebody else released it just now
        if queue[0].id != id:
            raise Conflict(f"{queue[0].id} of the same organization is parked before it", code="parked_earlier")
        return queue

    def _waiting(self, chosen: Parked) -> list[Parked]:
        """All that waits of the same organization."""
        place = (chosen.org, chosen.record.partition)
        return [p for p in self._parking.parked(self.name) if (p.org, p.record.partition) == place]

    # ------------------------------------------------------------ watermark

    def marks(self) -> dict[int, Mark]:
        """The watermark, as of now."""
        with self._moved:
            return dict(self._marks)

    def refresh(self) -> None:
        """Takes over what other processes did: how far they moved the view, what they parked, retried or dropped.

        An event that waits with nothing before it (its organization was released in one process while another still held it
        back) is applied here, once it was seen twice: whoever released the organization may still be at it. Raises `Unavailable`.
        """
        with self._lock:
            marks = dict(self._sink.marks())
            self._dropped |= self._given_up()
            if self._policy is Policy.PARK_ORG:
                idle = [first for first in self._parking.first(self.name) if first.org and first.error is None]
                for first in idle:
                    if first.id in self._idle:
                        self._replay(self._waiting(first))
                self._idle = {first.id for first in idle}
                self._blocked = self._blocking()
            self._move(marks)

    def _move(self, marks: dict[int, Mark]) -> None:
        """With the lock: who has the view stand still finds the watermark where the sink is."""
        with self._moved:
            self._marks = marks
            self._moved.notify_all()

    def offsets(self, partitions: int) -> list[int]:
        """The next offset of each partition."""
        marks = self.marks()
        return [marks[p].offset if p in marks else 0 for p in range(partitions)]

    def wait(self, reached: Callable[[dict[int, Mark]], bool], timeout: float) -> None:
        """Returns once `reached` says yes to the watermark. Raises `ViewBehind` after `timeout` seconds."""
        with self._moved:
            if not self._moved.wait_for(lambda: reached(self._marks), timeout):
                raise ViewBehind(f"the view {self.name} is behind the position asked for")

    def replace(self, sink: Sink) -> None:
        """Goes on with another version of the view; the old sink is closed."""
        with self._lock:
            marks = dict(sink.marks())
            old, self._sink = self._sink, sink
            self._move(marks)
            old.close()

    @contextmanager
    def standing_still(self) -> Iterator[Sink]:
        """Nothing is fed meanwhile; gives the sink in use."""
        with self._lock:
            yield self._sink

    @property
    def sink(self) -> Sink:
        """The version being fed."""
        return self._sink
