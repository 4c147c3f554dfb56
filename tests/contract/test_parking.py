"""What every parking must do, in SQLite and in PostgreSQL."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest

from domain.errors import NotFound
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Rows
from projections.ports import Parked, Parking, Record
from tests.contract.test_row_sink import postgres_rows, sqlite_rows
from tests.postgres import PostgresServer


def parked(id: str, offset: int, error: str | None = "bad", projection: str = "balances", org: str = "acme") -> Parked:
    record = Record(partition=3, offset=offset, value=b"\x00{}", position=0)
    at = datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC)
    return Parked(id=id, projection=projection, org=org, type="T", record=record, error=error, parked_at=at)


class ParkingContract:
    """Inherit it as `Test…`."""

    def opened(self) -> AbstractContextManager[Rows]:
        return sqlite_rows()

    @pytest.fixture
    def parking(self) -> Iterator[Parking]:
        with self.opened() as rows:
            yield RowParking(rows)

    def test_what_was_parked_is_listed_in_order(self, parking: Parking) -> None:
        """By projection, partition and offset; of one projection or of all."""
        b, a, other = parked("b", 2), parked("a", 1, None), parked("c", 0, projection="usage")
        parking.park([b, other, a])
        parking.park([])
        assert list(parking.parked()) == [a, b, other]
        assert list(parking.parked("balances")) == [a, b]
        assert parking.get("b") == b

    def test_the_first_of_each_organization_is_known(self, parking: Parking) -> None:
        """Of those that wait for one projection; what was released or dropped is not before the others any more."""
        parking.park([parked("a", 1), parked("b", 2, None), parked("c", 3), parked("d", 9, None, org="globex")])
        parking.park([parked("other", 0, projection="usage")])
        assert [one.id for one in parking.first("balances")] == ["a", "d"]
        parking.release("a")
        assert [one.id for one in parking.first("balances")] == ["b", "d"]
        parking.drop("b")
        assert [one.id for one in parking.first("balances")] == ["c", "d"]

    def test_parking_again_keeps_the_first_and_takes_on_an_error(self, parking: Parking) -> None:
        """An event that only waited and now failed says why; one that failed before goes on saying it."""
        parking.park([parked("a", 1, None), parked("b", 2, "first")])
        parking.park([parked("a", 1, "now"), parked("b", 2, None)])
        assert [one.error for one in parking.parked()] == ["now", "first"]

    def test_released_and_dropped_ones_are_gone(self, parking: Parking) -> None:
        """What was dropped is listed apart."""
        parking.park([parked("a", 1), parked("b", 2)])
        parking.release("a")
        parking.drop("b")
        assert list(parking.parked()) == []
        assert [(one.id, one.dropped) for one in parking.parked(dropped=True)] == [("b", True)]
        for id in ("a", "b", "never"):
            with pytest.raises(NotFound):
                parking.get(id)

    def test_an_event_with_any_text_in_it_can_be_parked(self, parking: Parking) -> None:
        """A poison event may be anything: its bytes are kept as they are, a zero byte in its names is replaced."""
        parking.park([parked("a", 1, "bad \0 é \U0001f4a5", org="\0")])
        kept = parking.get("a")
        assert kept.record.value == b"\x00{}"
        assert kept.org == "\ufffd"
        assert kept.error == "bad \ufffd é \U0001f4a5"


class TestSqliteParking(ParkingContract):
    """Parking in SQLite."""


@pytest.mark.usefixtures("postgres_class")
class TestPostgresParking(ParkingContract):
    """Parking in PostgreSQL."""

    postgres: PostgresServer

    def opened(self) -> AbstractContextManager[Rows]:
        return postgres_rows(self.postgres)
