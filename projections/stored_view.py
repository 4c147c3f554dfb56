"""A view that other processes feed, known by what its store holds: what reading, comparing and repairing it takes.

It stands in for the view's engine, which is where it is fed: `projections.reads.freshness`, `projections.rebuild` and the
operators' endpoints ask either. Whoever feeds the view finds out by itself what was done here (`Engine.refresh`).
"""

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager

from projections.engine import Clock, Engine, Policy
from projections.ports import Mark, Parking, Sink, Store


class StoredView:
    """Use it from any thread. Raises `Unavailable`."""

    def __init__(self, store: Store, parking: Parking, policy: Policy, clock: Clock) -> None:
        self.name, self.topic = store.name, store.topic
        self._store, self._parking, self._policy, self._clock = store, parking, policy, clock
        self._lock = threading.Lock()
        self._known: tuple[int, Sink] | None = None

    def marks(self) -> Mapping[int, Mark]:
        """The watermark of the live version, as the store has it now."""
        return self._store.marks()

    @property
    def sink(self) -> Sink:
        """The live version, to be compared: this process does not feed it."""
        version = self._store.live()
        with self._lock:
            if self._known is None or self._known[0] != version:
                self._known = (version, self._store.open(version))
            return self._known[1]

    def standing_still(self) -> AbstractContextManager[object]:
        """Nobody feeds the live version meanwhile; for seconds at most."""
        return self._store.standing_still(self._store.live())

    def replace(self, sink: Sink) -> None:
        """Another version was made live here: those who feed the view go on with it, with sinks of their own."""
        sink.close()

    def retry(self, id: str) -> int:
        """As `Engine.retry`."""
        return self._engine().retry(id)

    def drop(self, id: str) -> None:
        """As `Engine.drop`."""
        self._engine().drop(id)

    def _engine(self) -> Engine:
        sink = self._store.open(self._store.live())
        return Engine(self.name, self.topic, sink, self._parking, self._policy, self._clock)
