"""What every sink and store of a view must do. A suite says what its store, log, corruption and accident are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import Conflict, Unavailable
from projections.engine import Engine, Policy
from projections.ports import Batch, Event, Fingerprint, Mark, Outcome, Record, Sink, Store
from projections.rebuild import Projection, Rebuilder
from tests.factgen import MemoryLog, batches
from tests.memory_views import MemoryParking

NOW = datetime(2026, 11, 23, tzinfo=UTC)

few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
)

_MOST_BATCHES = 12
"""Of a partition: each is a round trip or more."""


def engine(store: Store, sink: Sink) -> Engine:
    """The engine of a view that no poison is expected for."""
    return Engine(store.name, store.topic, sink, MemoryParking(), Policy.STOP, lambda: NOW)


def shuffled_ways(draw: st.DrawFn, log: MemoryLog) -> list[Sequence[Record]]:
    """All records of `log` in batches of any size, partitions in any order, with earlier ones delivered again."""
    ways: list[Sequence[Record]] = []
    for records in draw(st.permutations([kept for kept in log.records if kept])):
        smallest = -(-len(records) // _MOST_BATCHES)
        for batch in batches(records, draw(st.integers(smallest, len(records)))):
            ways.append(batch)
            if ways and draw(st.integers(0, 3)) == 0:
                ways.append(ways[draw(st.integers(0, len(ways) - 1))])
    return ways


class SinkContract(ABC):
    """Inherit it as `Test…`."""

    @abstractmethod
    def fresh(self) -> AbstractContextManager[Store]:
        """A store without a past."""

    @abstractmethod
    def log(self) -> MemoryLog:
        """A log of the view's topic with everything that may be in it."""

    @abstractmethod
    def corrupt(self, store: Store) -> None:
        """Changes one value of one row of the live version, behind the sink's back."""

    @abstractmethod
    def accident(self, sink: Sink, batch: Batch) -> None:
        """Applies `batch`, with the store failing (`Unavailable`) just before the watermark is in."""

    def straight(self, store: Store, log: MemoryLog) -> Sink:
        """The live version, fed the whole of `log` at once."""
        sink = store.open(store.live())
        engine(store, sink).feed(log.all())
        return sink

    def test_batches_and_redelivery_do_not_show(self) -> None:
        """However the log is cut into batches, and whatever comes again, the rows are the same."""
        log = self.log()
        with self.fresh() as store:
            expected = self.straight(store, log).fingerprint()

            @few
            @given(ways=st.composite(shuffled_ways)(log))
            def is_the_same(ways: list[Sequence[Record]]) -> None:
                other = store.open(store.create())
                fed = engine(store, other)
                for batch in ways:
                    fed.feed(batch)
                assert other.fingerprint() == expected

            is_the_same()

    def test_a_batch_is_applied_once(self) -> None:
        """The batch that was applied is ALREADY there, one that leaves a gap is STALE, and neither changes anything."""
        log = self.log()
        with self.fresh() as store:
            sink = store.open(store.live())
            first, second = _two_batches(store, log)
            assert sink.apply(second) is Outcome.STALE
            assert sink.marks() == {}
            assert sink.apply(first) is Outcome.APPLIED
            before = sink.fingerprint()
            assert sink.apply(first) is Outcome.ALREADY
            assert sink.fingerprint() == before
            assert sink.apply(second) is Outcome.APPLIED

    def test_another_sink_of_the_version_sees_what_is_in(self) -> None:
        """A second process that is late is told so, and goes on from what the first has done."""
        log = self.log()
        with self.fresh() as store:
            early, late = store.open(store.live()), store.open(store.live())
            first, second = _two_batches(store, log)
            early.apply(first)
            assert late.apply(first) is Outcome.ALREADY
            assert late.apply(second) is Outcome.APPLIED
            assert early.apply(second) is Outcome.ALREADY

    def test_a_crash_before_the_watermark_costs_and_doubles_nothing(self) -> None:
        """A batch that broke off is applied again by a sink that knows nothing of it; the rows are as if it had not."""
        log = self.log()
        with self.fresh() as store:
            sink = store.open(store.live())
            first, second = _two_batches(store, log)
            sink.apply(first)
            with pytest.raises(Unavailable):
                self.accident(sink, second)
            again = store.open(store.live())
            assert again.apply(second) is Outcome.APPLIED
            other = store.open(store.create())
            engine(store, other).feed(log.all())
            assert again.fingerprint() == other.fingerprint()

    def test_running_ahead_leads_to_the_same_view(self) -> None:
        """Batch after batch, none awaited: once it is over all is in, with the watermark of it."""
        log = self.log()
        with self.fresh() as store:
            expected = self.straight(store, log).fingerprint()
            other = store.open(store.create())
            fed = engine(store, other)
            with other.running_ahead():
                for records in batches(log.all(), 37):
                    assert fed.feed(records) is Outcome.APPLIED
            assert other.fingerprint() == expected

    def test_the_watermark_counts(self) -> None:
        """The mark of a partition is behind its last record."""
        log = self.log()
        with self.fresh() as store:
            marks = self.straight(store, log).marks()
        assert {p: mark.offset for p, mark in marks.items()} == {p: n for p, n in enumerate(log.ends()) if n}

    def test_a_rebuild_agrees_and_takes_over(self) -> None:
        """The rebuilt version has the hash of the live one, becomes live, and is fed from then on."""
        log = self.log()
        with self.fresh() as store:
            live = engine(store, store.open(store.live()))
            live.feed(log.all())
            before = store.live()
            done = self.rebuilder(store, live, log).rebuild(store.name)
            assert done.equal
            assert done.switched
            assert done.events == live.sink.fingerprint().events
            assert store.live() != before
            assert live.feed(log.all()) is Outcome.ALREADY

    def test_a_verification_changes_nothing(self) -> None:
        """It says the hashes are equal, reports its progress to the end, and the live version stays."""
        log = self.log()
        with self.fresh() as store:
            live = engine(store, store.open(store.live()))
            live.feed(log.all())
            seen: list[tuple[int, int]] = []
            done = self.rebuilder(store, live, log).verify(store.name, lambda *at: seen.append(at))
            assert done.equal
            assert store.live() == done.version
            assert seen[0][0] == 0
            assert seen[-1] == (sum(log.ends()), sum(log.ends()))

    def test_a_corrupted_row_is_found(self) -> None:
        """One changed value makes the hashes differ; a rebuild puts it right."""
        log = self.log()
        with self.fresh() as store:
            live = engine(store, store.open(store.live()))
            live.feed(log.all())
            self.corrupt(store)
            rebuilder = self.rebuilder(store, live, log)
            assert not rebuilder.verify(store.name).equal
            assert not rebuilder.rebuild(store.name).equal
            assert rebuilder.verify(store.name).equal

    def test_a_version_that_was_switched_away_is_not_fed_any_more(self) -> None:
        """Whoever still has the old version is told so, whatever is applied or replayed, and nothing of it is lost: the new one
        has everything up to its watermark, and goes on there."""
        log = self.log()
        with self.fresh() as store:
            late, idle = store.open(store.live()), store.open(store.live())
            first, second = _two_batches(store, log)
            late.apply(first)
            new = store.open(store.create())
            new.apply(first)
            store.switch(store.live() + 1)
            for old in (late, idle):
                with pytest.raises(Unavailable) as told:
                    old.apply(second)
                assert told.value.code == "version_replaced"
                with pytest.raises(Unavailable):
                    old.replay(first.spans[0].events[0])
            again = store.open(store.live())
            assert again.marks() == new.marks()
            assert again.apply(second) is Outcome.APPLIED
            other = store.open(store.create())
            engine(store, other).feed(log.all())
            assert again.fingerprint() == other.fingerprint()

    def test_a_version_that_is_behind_does_not_take_over(self) -> None:
        """Switching to a version with a lower watermark anywhere is refused."""
        log = self.log()
        with self.fresh() as store:
            self.straight(store, log)
            version, before = store.create(), store.live()
            with pytest.raises(Conflict):
                store.switch(version)
            assert store.live() == before

    def test_a_parked_event_is_applied_once_though_replayed_twice(self) -> None:
        """Replaying what is in already changes no row and no watermark."""
        log = self.log()
        with self.fresh() as store:
            live = engine(store, store.open(store.live()))
            live.feed(log.all())
            before = live.sink.fingerprint()
            for span in _batch(store, log, {}, 1 << 30).spans:
                live.sink.replay(span.events[0])
                live.sink.replay(span.events[-1])
            assert live.sink.fingerprint() == before

    def rebuilder(self, store: Store, live: Engine, log: MemoryLog) -> Rebuilder:
        projection = Projection(store, live, lambda: log)
        return Rebuilder({store.name: projection}, MemoryParking(), lambda: NOW)


def _two_batches(store: Store, log: MemoryLog) -> tuple[Batch, Batch]:
    """The whole log in two batches, as an engine would form them."""
    middle = max(log.ends()) // 2
    first = _batch(store, log, {}, middle)
    return first, _batch(store, log, {span.partition: span.end for span in first.spans}, 1 << 30)


def _batch(store: Store, log: MemoryLog, start: dict[int, Mark], limit: int) -> Batch:
    """The next `limit` records of each partition after `start`, as an engine hands them to its sink."""
    recorder = _Recorder(start)
    offsets = [start.get(p, Mark()).offset for p in range(log.partitions)]
    engine(store, recorder).feed([r for p, offset in enumerate(offsets) for r in log.read(p, offset, limit)])
    return recorder.batch


class _Recorder(Sink):
    """A sink that keeps the batch it is given."""

    def __init__(self, marks: dict[int, Mark]) -> None:
        self._marks = marks
        self.batch = Batch([])

    def marks(self) -> dict[int, Mark]:
        return self._marks

    def apply(self, batch: Batch) -> Outcome:
        self.batch = batch
        return Outcome.APPLIED

    def running_ahead(self) -> AbstractContextManager[object]:
        raise NotImplementedError

    def replay(self, event: Event) -> None:
        raise NotImplementedError

    def fingerprint(self) -> Fingerprint:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
