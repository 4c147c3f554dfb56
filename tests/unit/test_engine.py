"""The engine: every record once, in order, chained where it must be; what cannot be taken in gives way by policy."""

from datetime import UTC, datetime
from threading import Condition, Event, Thread, current_thread
from unittest.mock import patch

import pytest

from domain.errors import Conflict, NotFound, Unavailable, ViewBehind
from projections.engine import Engine, Policy
from projections.ports import CONTROL, FACTS, Mark, Outcome, Poisoned, Record
from tests.controlgen import ControlTraffic
from tests.factgen import Traffic
from tests.memory_views import MemoryParking, MemorySink

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def engine(sink: MemorySink, policy: Policy, parking: MemoryParking, topic: str = FACTS) -> Engine:
    return Engine("view", topic, sink, parking, policy, lambda: NOW)


def two_orgs_in_one_partition() -> list[Record]:
    """Records 0.. of a partition: the gate's opening, then acme and initech by turns."""
    traffic = Traffic(1, orgs=("acme",)).run(6, plain=1.0)
    records = max(traffic.log.records, key=len)
    turned = [
        Record(3, record.offset, record.value.replace(b'"org":"acme"', b'"org":"initech"'))
        if record.offset % 2 == 0
        else Record(3, record.offset, record.value)
        for record in records
    ]
    return [Record(3, 0, records[0].value), *turned[1:9]]


def test_records_below_the_watermark_are_dropped() -> None:
    """Overlapping deliveries take effect once."""
    sink = MemorySink()
    fed = engine(sink, Policy.STOP, MemoryParking())
    records = two_orgs_in_one_partition()
    fed.feed(records[:5])
    fed.feed(records[2:])
    assert fed.feed(records) is Outcome.ALREADY
    assert [offset for _, _, offset in sink.held] == list(range(9))
    assert sink.at == {3: Mark(9, 0, 9)}


def test_control_records_must_continue_the_chain() -> None:
    """A record sent again by a deposed leader changes nothing; position and count are of the accepted ones."""
    traffic = ControlTraffic(2).run(60)
    sink = MemorySink()
    engine(sink, Policy.STOP, MemoryParking(), CONTROL).feed(traffic.log.all())
    accepted = [record for record in traffic.log.all() if record.offset in {offset for _, _, offset in sink.held}]
    assert [record.previous for record in accepted] == [0, *(record.position for record in accepted[:-1])]
    assert sink.at == {0: Mark(len(traffic.log.all()), traffic.position, len(accepted))}
    assert len(accepted) < len(traffic.log.all())


def test_poison_holds_back_its_organization_only() -> None:
    """The event and the organization's later ones are parked, in order; the other organization goes on."""
    sink, parking = MemorySink(), MemoryParking()
    sink.refuse = {4}
    fed = engine(sink, Policy.PARK_ORG, parking)
    records = two_orgs_in_one_partition()
    fed.feed(records[:6])
    fed.feed(records[6:])
    assert [place for place in sink.held if place[0] == "initech"] == [("initech", 3, 2)]
    assert [offset for org, _, offset in sink.held if org == "acme"] == [1, 3, 5, 7]
    waiting = parking.parked("view")
    assert [one.record.offset for one in waiting] == [4, 6, 8]
    assert waiting[0].error is not None
    assert "refused" in waiting[0].error
    assert [one.error for one in waiting[1:]] == [None, None]
    assert sink.at[3].offset == 9


def test_what_is_parked_stays_so_over_a_restart() -> None:
    """A new engine goes on holding the organization back."""
    sink, parking = MemorySink(), MemoryParking()
    sink.refuse = {4}
    records = two_orgs_in_one_partition()
    engine(sink, Policy.PARK_ORG, parking).feed(records[:5])
    sink.refuse = set()
    engine(sink, Policy.PARK_ORG, parking).feed(records)
    assert [one.record.offset for one in parking.parked("view")] == [4, 6, 8]


def test_retry_applies_what_waited_in_order() -> None:
    """Once the cause is gone the event and those behind it are applied, and the organization flows again."""
    sink, parking = MemorySink(), MemoryParking()
    sink.refuse = {4}
    fed = engine(sink, Policy.PARK_ORG, parking)
    records = two_orgs_in_one_partition()
    fed.feed(records[:8])
    with pytest.raises(Conflict, match="refused"):
        fed.retry("view-3-4")
    with pytest.raises(Conflict, match="view-3-4 of the same organization"):
        fed.retry("view-3-6")
    sink.refuse = set()
    assert fed.retry("view-3-4") == 2
    fed.feed(records)
    assert [offset for org, _, offset in sink.held if org == "initech"] == [2, 4, 6, 8]
    assert parking.parked("view") == []
    with pytest.raises(NotFound):
        fed.retry("view-3-4")


def test_drop_gives_one_up_and_applies_the_rest() -> None:
    """The dropped event is left out, by a rebuild too."""
    sink, parking = MemorySink(), MemoryParking()
    sink.refuse = {4}
    fed = engine(sink, Policy.PARK_ORG, parking)
    records = two_orgs_in_one_partition()
    fed.feed(records)
    fed.drop("view-3-4")
    assert [offset for org, _, offset in sink.held if org == "initech"] == [2, 6, 8]
    assert parking.parked("view") == []
    rebuilt = MemorySink()
    rebuilt.refuse = {4}
    engine(rebuilt, Policy.STOP, parking).feed(records)
    assert sorted(rebuilt.held) == sorted(sink.held)


def test_park_one_goes_on() -> None:
    """Under the other policy only the poison itself is parked."""
    sink, parking = MemorySink(), MemoryParking()
    sink.refuse = {4}
    engine(sink, Policy.PARK_ONE, parking).feed(two_orgs_in_one_partition())
    assert [one.record.offset for one in parking.parked("view")] == [4]
    assert [offset for _, _, offset in sink.held] == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("value", [b"not json", b'{"org":"acme"}', b"\xff\xfe", b'{"type":"Unheard"}'])
def test_bytes_that_are_no_event_are_parked(value: bytes) -> None:
    """Whatever is in a record, the others are taken in and it can be looked at."""
    sink, parking = MemorySink(), MemoryParking()
    records = two_orgs_in_one_partition()
    records[4] = Record(3, 4, value)
    engine(sink, Policy.PARK_ONE, parking).feed(records)
    assert [one.record.value for one in parking.parked("view")] == [value]
    assert len(sink.held) == 8


def test_a_rebuild_stops_at_poison() -> None:
    """Nothing of the batch is applied, and the event is named."""
    sink, parking = MemorySink(), MemoryParking()
    sink.refuse = {4}
    with pytest.raises(Poisoned, match=r"at 3\.4"):
        engine(sink, Policy.STOP, parking).feed(two_orgs_in_one_partition())
    assert sink.held == []
    assert parking.parked() == []


def test_a_store_that_is_down_parks_nothing() -> None:
    """An outage is no poison: the records come again and are applied."""
    sink, parking = MemorySink(), MemoryParking()
    fed = engine(sink, Policy.PARK_ORG, parking)
    sink.down = True
    with pytest.raises(Unavailable):
        fed.feed(two_orgs_in_one_partition())
    sink.down = False
    assert fed.feed(two_orgs_in_one_partition()) is Outcome.APPLIED
    assert parking.parked() == []


def test_a_view_somebody_else_moved_is_read_anew() -> None:
    """A stale batch changes nothing; the next one starts from where the view is."""
    sink = MemorySink()
    records = two_orgs_in_one_partition()
    late = engine(sink, Policy.STOP, MemoryParking())
    engine(sink, Policy.STOP, MemoryParking()).feed(records[:5])
    assert late.feed(records) is Outcome.STALE
    assert late.feed(records) is Outcome.APPLIED
    assert [offset for _, _, offset in sink.held] == list(range(9))


def test_wait_returns_when_the_view_is_there() -> None:
    """A reader that waits for a position is woken by the batch that brings it; one that waits in vain is told."""
    sink = MemorySink()
    fed = engine(sink, Policy.STOP, MemoryParking())
    with pytest.raises(ViewBehind):
        fed.wait(lambda marks: 3 in marks, 0.0)
    feeder = Thread(target=fed.feed, args=(two_orgs_in_one_partition(),))
    feeder.start()
    fed.wait(lambda marks: marks.get(3, Mark()).offset == 9, 10.0)
    feeder.join()


def test_what_other_processes_did_is_taken_over() -> None:
    """Two engines on one view: each goes on where the other one left it, and holds back what the other one parked."""
    sink, parking = MemorySink(), MemoryParking()
    one, other = (engine(sink, Policy.PARK_ORG, parking) for _ in range(2))
    records = two_orgs_in_one_partition()
    sink.refuse = {3}
    one.feed(records[:5])
    other.refresh()
    assert other.offsets(12)[3] == 5
    other.feed(records[5:])
    assert [parked.record.offset for parked in parking.parked("view")] == [3, 5, 7]
    sink.refuse = set()
    assert one.retry("view-3-3") == 3
    other.refresh()
    assert other.feed([Record(3, 9, records[1].value)]) is Outcome.APPLIED
    assert parking.parked("view") == []


def test_events_that_wait_behind_nothing_are_applied() -> None:
    """An organization was released in one process while another one still held it back: nobody has to retry what that parked.
    At the second look: at the first one the other process may be in the middle of it."""
    sink, parking = MemorySink(), MemoryParking()
    one, other = (engine(sink, Policy.PARK_ORG, parking) for _ in range(2))
    records = two_orgs_in_one_partition()
    sink.refuse = {1}
    one.feed(records[:4])
    sink.refuse = set()
    other.retry("view-3-1")
    one.feed(records[4:])
    assert [parked.record.offset for parked in parking.parked("view")] == [5, 7]
    one.refresh()
    assert [parked.record.offset for parked in parking.parked("view")] == [5, 7]
    one.refresh()
    assert parking.parked("view") == []
    assert sorted(offset for _, _, offset in sink.held) == list(range(9))
    assert [offset for org, _, offset in sink.held if org == "acme"] == [1, 3, 5, 7]


def test_a_view_that_stands_still_is_where_its_watermark_says() -> None:
    """Whoever gets to have the view stand still right after a batch finds the batch in the watermark."""
    sink = MemorySink()
    fed = engine(sink, Policy.STOP, MemoryParking())
    records = two_orgs_in_one_partition()
    seen: list[tuple[dict[int, Mark], dict[int, Mark]]] = []
    applied = Event()

    def look() -> None:
        applied.wait()
        with fed.standing_still():
            seen.append((fed.marks(), dict(sink.at)))

    class Told(Condition):
        """Whoever tells that the view moved lets another thread look first, if that gets to."""

        def __enter__(self) -> bool:
            if current_thread() is not looking:
                applied.set()
                looking.join(0.3)
            return super().__enter__()

    looking = Thread(target=look)
    looking.start()
    with patch.object(fed, "_moved", Told()):
        fed.feed(records)
        looking.join()
    assert seen == [({3: Mark(9, 0, 9)}, {3: Mark(9, 0, 9)})]
