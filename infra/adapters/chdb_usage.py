"""The usage view in the analytics engine: tables of requests and of facts. Rows are made by `projections.usage`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from infra.adapters.chdb_engine import Analytics
from projections.ports import FACTS, Event, Mark
from projections.usage import NAME, Rows, project

_SCHEMA = Path(__file__).with_suffix(".sql").read_text()


class _Epoch(Struct, array_like=True):
    partition: int
    offset: int
    epoch: int


class UsageView:
    """`AnalyticsView` of usage. Knows the epoch of each partition."""

    name = NAME
    looks_back = False
    topic = FACTS

    def __init__(self) -> None:
        self._epochs: dict[int, int] = {}
        self._next: dict[int, int] = {}

    def tables(self, version: int) -> Sequence[str]:
        """See `AnalyticsView`."""
        return [f"usage_requests_{version}", f"usage_facts_{version}"]

    def schema(self, version: int) -> Sequence[str]:
        """See `AnalyticsView`."""
        return _SCHEMA.format(v=version).split(";")

    def resume(self, analytics: Analytics, version: int, marks: Mapping[int, Mark]) -> None:
        """See `AnalyticsView`."""
        ends = {partition: mark.offset for partition, mark in marks.items()}
        self._epochs = _epochs(analytics, version, ends)

    def rows(self, analytics: Analytics, version: int, events: Sequence[Event]) -> Mapping[str, list[Any]]:  # noqa: ARG002  # part of the protocol
        """See `AnalyticsView`."""
        rows = project(events, self._epochs)
        self._next = rows.epochs
        return _tables(version, rows)

    def written(self) -> None:
        """See `AnalyticsView`."""
        self._epochs = self._next

    def replayed(self, analytics: Analytics, version: int, event: Event) -> Mapping[str, list[Any]]:
        """See `AnalyticsView`. The epoch is that of the event's place in the log."""
        return _tables(version, project([event], _epochs(analytics, version, {event.partition: event.offset})))


def _tables(version: int, rows: Rows) -> Mapping[str, list[Any]]:
    """In the order in which they are written: who sees a request finds its facts."""
    return {f"usage_facts_{version}": rows.facts, f"usage_requests_{version}": rows.requests}


def _epochs(analytics: Analytics, version: int, before: Mapping[int, int]) -> dict[int, int]:
    opened = analytics.query(
        _Epoch,
        f"SELECT partition, offset, JSONExtractUInt(body, 'data', 'epoch') AS epoch FROM usage_facts_{version}"
        " WHERE org = '_' AND request = '' AND type = 'GateOpened'",
    )
    epochs: dict[int, int] = {}
    for row in opened:
        if row.offset < before.get(row.partition, 0):
            epochs[row.partition] = max(epochs.get(row.partition, 0), row.epoch)
    return epochs
