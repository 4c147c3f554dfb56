"""Parked events of all projections, in the views file."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from domain.errors import NotFound
from infra.adapters.sqlite_views import ViewsFile
from projections.ports import Parked, Record

_COLUMNS = 'id, projection, partition, "offset", position, org, type, body, error, parked_at, dropped'


class SqliteParking:
    """See `projections.ports.Parking`. Raises `Unavailable`."""

    def __init__(self, file: ViewsFile) -> None:
        self._file = file

    def park(self, parked: Sequence[Parked]) -> None:
        """See `Parking`."""
        if not parked:
            return
        with self._file.writing() as db:
            db.executemany(
                f"INSERT INTO parked ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET error = coalesce(excluded.error, error)",
                [_row(one) for one in parked],
            )

    def parked(self, projection: str | None = None, *, dropped: bool = False) -> Sequence[Parked]:
        """See `Parking`."""
        with self._file.reading() as db:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM parked WHERE dropped = ? AND coalesce(projection = ?, TRUE)"
                ' ORDER BY projection, partition, "offset"',
                (dropped, projection),
            )
            return [_parked(row) for row in found]

    def get(self, id: str) -> Parked:
        """See `Parking`."""
        with self._file.reading() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM parked WHERE id = ? AND NOT dropped", (id,)).fetchone()
        if row is None:
            raise NotFound(f"no parked event {id}")
        return _parked(row)

    def release(self, id: str) -> None:
        """See `Parking`."""
        with self._file.writing() as db:
            db.execute("DELETE FROM parked WHERE id = ?", (id,))

    def drop(self, id: str) -> None:
        """See `Parking`."""
        with self._file.writing() as db:
            db.execute("UPDATE parked SET dropped = TRUE WHERE id = ?", (id,))


def _row(one: Parked) -> tuple[Any, ...]:
    record = one.record
    at = one.parked_at.astimezone(UTC).isoformat()
    place = (one.id, one.projection, record.partition, record.offset, record.position)
    return (*place, one.org, one.type, record.value, one.error, at, one.dropped)


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
