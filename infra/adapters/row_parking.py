"""Parked events of all projections, beside the row views."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from domain.errors import NotFound
from infra.adapters.row_views import Rows
from projections.ports import Parked, Record

_COLUMNS = 'id, projection, partition, "offset", position, org, type, body, error, parked_at, dropped'


class RowParking:
    """See `projections.ports.Parking`. Raises `Unavailable`."""

    def __init__(self, file: Rows) -> None:
        self._file = file

    def park(self, parked: Sequence[Parked]) -> None:
        """See `Parking`."""
        if not parked:
            return
        with self._file.writing() as db:
            db.executemany(
                f"INSERT INTO parked ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET error = coalesce(excluded.error, parked.error)",
                [_row(one) for one in parked],
            )

    def parked(self, projection: str | None = None, *, dropped: bool = False) -> Sequence[Parked]:
        """See `Parking`."""
        found = self._file.query(
            f"SELECT {_COLUMNS} FROM parked WHERE dropped = ? AND projection = coalesce(?, projection)"
            ' ORDER BY projection, partition, "offset"',
            (int(dropped), projection),
        )
        return [_parked(row) for row in found]

    def first(self, projection: str) -> Sequence[Parked]:
        """See `Parking`."""
        found = self._file.query(
            f"SELECT {_COLUMNS} FROM parked WHERE dropped = 0 AND projection = ?"
            ' AND (partition, org, "offset") IN (SELECT partition, org, min("offset") FROM parked'
            "  WHERE dropped = 0 AND projection = ? GROUP BY partition, org)"
            ' ORDER BY partition, "offset"',
            (projection, projection),
        )
        return [_parked(row) for row in found]

    def get(self, id: str) -> Parked:
        """See `Parking`."""
        found = self._file.query(f"SELECT {_COLUMNS} FROM parked WHERE id = ? AND dropped = 0", (id,))
        if not found:
            raise NotFound(f"no parked event {id}")
        return _parked(found[0])

    def release(self, id: str) -> None:
        """See `Parking`."""
        with self._file.writing() as db:
            db.execute("DELETE FROM parked WHERE id = ?", (id,))

    def drop(self, id: str) -> None:
        """See `Parking`."""
        with self._file.writing() as db:
            db.execute("UPDATE parked SET dropped = 1 WHERE id = ?", (id,))


def _row(one: Parked) -> tuple[Any, ...]:
    record = one.record
    at = one.parked_at.astimezone(UTC).isoformat()
    place = (one.id, one.projection, record.partition, record.offset, record.position)
    told = (_storable(one.org), _storable(one.type), record.value, one.error and _storable(one.error))
    return (*place, *told, at, int(one.dropped))


def _storable(text: str) -> str:
    """A poison event may have any text in it; PostgreSQL keeps no zero bytes."""
    return text.replace("\0", "\ufffd")


def _parked(row: tuple[Any, ...]) -> Parked:
    id, projection, partition, offset, position, org, type, body, error, parked_at, dropped = row
    return Parked(
        id=id,
        projection=projection,
        org=org,
        type=type,
        record=Record(partition, offset, body, position),
        error=error,
        parked_at=datetime.fromisoformat(parked_at),
        dropped=bool(dropped),
    )
