"""What every sink and store of a view must do. Each suite names its store, its log, and one way to corrupt a row."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import Conflict
from projections.engine import Engine, Policy
from projections.ports import Batch, Mark, Outcome, Parked, Record, Sink, Span, Store
from projections.rebuild import Projection, Rebuilder
from tests.factgen import MemoryLog, batches

NOW = datetime(2026, 11, 23, tzinfo=UTC)

few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow])


@dataclass
class MemoryParking:
    """`Parking` in memory."""

    kept: dict[str, Parked] = field(default_factory=dict)

    def park(self, parked: Sequence[Parked]) -> None:
        for one in parked:
            if one.error is not None or one.id not in self.kept:
                self.kept[one.id] = one

    def parked(self, projection: str | None = None, *, dropped: bool = False) -> Sequence[Parked]:
        found = [p for p in self.kept.values() if p.dropped == dropped and projection in (None, p.projection)]
        return sorted(found, key=lambda p: (p.projection, p.record.partition, p.record.offset))

    def get(self, id: str) -> Parked:
        return self.kept[id]

    def release(self, id: str) -> None:
        del self.kept[id]

    def drop(self, id: str) -> None:
        raise NotImplementedError


def engine(store: Store, sink: Sink) -> Engine:
    """The engine of a view nobody expects poison for."""
    return Engine(store.name, store.topic, sink, MemoryParking(), Policy.STOP, lambda: NOW)


class SinkContract(ABC):
    """Inherit it, and answer the four questions below."""

    @abstractmethod
    def stores(self) -> "contextmanager[Store]":  # type: ignore[valid-type]  # a context manager of a fresh, empty store
        ...

    @staticmethod
    @abstractmethod
    def log() -> MemoryLog:
        """A log of the view's topic with everything that may be in it."""

    @abstractmethod
    def corrupt(self, store: Store) -> None:
        """Changes one value of one live row behind the sink's back."""

    @abstractmethod
    def break_off(self, sink: Sink, batch: Batch) -> None:
        """Applies `batch` and dies on the way, as late as possible."""
