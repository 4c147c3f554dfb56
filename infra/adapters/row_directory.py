"""The directory view in rows, and reading it. What an event does is `projections.directory`."""

from collections.abc import Sequence
from pathlib import Path

from infra.adapters.row_views import Database, Rows, listed, live_version, upsert
from projections.directory import NAME, Entry, fold
from projections.ports import CONTROL, Event, Span

_SCHEMA = Path(__file__).with_suffix(".sql").read_text()
_ENTRY = ("stream", "kind", "org", "id", "version", "state", "removed", "created_at", "changed_at")
_COLUMNS = ", ".join(_ENTRY)


class DirectoryView:
    """`RowView` of the directory."""

    name = NAME
    topic = CONTROL

    def tables(self, version: int) -> Sequence[str]:
        """See `RowView`."""
        return [f"directory_entries_{version}"]

    def schema(self, version: int) -> str:
        """See `RowView`."""
        return _SCHEMA.format(v=version)

    def apply(self, db: Database, version: int, span: Span, held_back: frozenset[str]) -> None:  # noqa: ARG002  # part of the protocol
        """See `RowView`."""
        self._take_in(db, version, span.events)

    def replay(self, db: Database, version: int, event: Event) -> None:
        """See `RowView`."""
        self._take_in(db, version, [event])

    def rows(self, version: int) -> Sequence[str]:
        """See `RowView`."""
        return [f"SELECT {_COLUMNS} FROM directory_entries_{version} ORDER BY stream"]

    def _take_in(self, db: Database, version: int, events: Sequence[Event]) -> None:
        streams = {event.envelope.stream for event in events}
        found = db.execute(
            f"SELECT {_COLUMNS} FROM directory_entries_{version} WHERE stream IN (SELECT value ->> 0 FROM json_each(?))",
            (listed(streams),),
        )
        before = {entry.stream: entry for entry in map(_entry, found)}
        db.executemany(
            upsert(f"directory_entries_{version}", _ENTRY, key=("stream",)),
            [_row(entry) for entry in fold(before, events).values()],
        )


class RowDirectory:
    """See `projections.reads.directory.Directory`. Raises `Unavailable`."""

    def __init__(self, file: Rows) -> None:
        self._file = file

    def get(self, stream: str) -> Entry | None:
        """See `Directory`."""
        with self._file.reading() as db:
            version = live_version(db, NAME)
            if version is None:
                return None
            sql = f"SELECT {_COLUMNS} FROM directory_entries_{version} WHERE stream = ?"
            row = db.execute(sql, (stream,)).fetchone()
        return None if row is None else _entry(row)

    def list(self, org: str, kind: str, after: str, limit: int, *, removed: bool) -> Sequence[Entry]:
        """See `Directory`."""
        return self._select(
            "org = ? AND kind = ? AND id > ? AND removed <= ? ORDER BY id LIMIT ?",
            org,
            kind,
            after,
            int(removed),
            limit,
        )

    def everywhere(self, kind: str, after: str, limit: int, *, removed: bool) -> Sequence[Entry]:
        """See `Directory`."""
        return self._select(
            "kind = ? AND stream > ? AND removed <= ? ORDER BY stream LIMIT ?", kind, after, int(removed), limit
        )

    def _select(self, condition: str, *params: object) -> Sequence[Entry]:
        with self._file.reading() as db:
            version = live_version(db, NAME)
            if version is None:
                return []
            found = db.execute(f"SELECT {_COLUMNS} FROM directory_entries_{version} WHERE {condition}", params)
            return [_entry(row) for row in found]


def _row(entry: Entry) -> tuple[object, ...]:
    state = entry.state.decode()
    place = (entry.stream, entry.kind, entry.org, entry.id, entry.version)
    return (*place, state, int(entry.removed), entry.created_at, entry.changed_at)


def _entry(row: tuple[str, str, str, str, int, str, int, str, str]) -> Entry:
    stream, kind, org, id, version, state, removed, created_at, changed_at = row
    return Entry(
        stream=stream,
        kind=kind,
        org=org,
        id=id,
        version=version,
        state=state.encode(),
        removed=bool(removed),
        created_at=created_at,
        changed_at=changed_at,
    )
