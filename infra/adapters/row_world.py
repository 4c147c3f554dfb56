"""The World view in rows, and reading it. What an event says is `projections.world`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from infra.adapters.row_balances import micros
from infra.adapters.row_views import Database, Rows, live_version
from projections.ports import FACTS, Event, Span
from projections.world import KEPT, NAME, Answer, ModelPace, answers

_SCHEMA = Path(__file__).with_suffix(".sql").read_text()
_KEPT_US = KEPT // timedelta(microseconds=1)
_COLUMNS = "org, attempt, model, time, latency_us, partition"
_ADD = (
    "INSERT INTO world_answers_{v} (" + _COLUMNS + ") VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (org, attempt) DO NOTHING"
)
_FORGET = """
DELETE FROM world_answers_{v} WHERE partition = ?
AND time < (SELECT max(time) FROM world_answers_{v} WHERE partition = ?) - ?
"""
_SLOWEST = """
SELECT model, count(*), sum(latency_us), max(latency_us) FROM world_answers_{v} WHERE org = ? AND time >= ?
GROUP BY model ORDER BY sum(latency_us) * 1.0 / count(*) DESC, model LIMIT ?
"""


class WorldView:
    """`RowView` of answers."""

    name = NAME
    topic = FACTS

    def tables(self, version: int) -> Sequence[str]:
        """See `RowView`."""
        return [f"world_answers_{version}"]

    def schema(self, version: int) -> str:
        """See `RowView`."""
        return _SCHEMA.format(v=version)

    def apply(self, db: Database, version: int, span: Span, held_back: frozenset[str]) -> None:  # noqa: ARG002  # part of the protocol
        """See `RowView`."""
        self._take_in(db, version, span.partition, span.events)

    def replay(self, db: Database, version: int, event: Event) -> None:
        """See `RowView`."""
        self._take_in(db, version, event.partition, [event])

    def rows(self, version: int) -> Sequence[str]:
        """See `RowView`."""
        return [f"SELECT {_COLUMNS} FROM world_answers_{version} ORDER BY org, attempt"]

    def _take_in(self, db: Database, version: int, partition: int, events: Sequence[Event]) -> None:
        first: dict[tuple[str, str], Answer] = {}
        for answer in answers(events):
            first.setdefault((answer.org, answer.attempt), answer)
        rows = [(a.org, a.attempt, a.model, micros(a.time), a.latency_us, partition) for a in first.values()]
        if rows:
            db.executemany(_ADD.format(v=version), rows)
            db.execute(_FORGET.format(v=version), (partition, partition, _KEPT_US))


class RowPaces:
    """See `projections.world.Paces`."""

    def __init__(self, file: Rows) -> None:
        self._file = file

    def slowest(self, org: str, since: datetime, limit: int) -> Sequence[ModelPace]:
        """See `Paces`."""
        with self._file.reading() as db:
            version = live_version(db, NAME)
            if version is None:
                return []
            found = db.execute(_SLOWEST.format(v=version), (org, micros(since), limit))
            return [
                ModelPace(model, count, round(float(total) / count / 1000, 3), round(slowest / 1000, 3))
                for model, count, total, slowest in found
            ]
