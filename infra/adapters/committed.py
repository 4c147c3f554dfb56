"""What this process committed last, in memory: who follows the journal closely need not ask the store for it."""

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock

from commands.ports import Stored

KEPT = 4096
"""Events, at most about."""


class Committed:
    """Events between which nothing else was committed. Threads may call everything at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._start = -1
        self._events: list[Stored] = []

    def add(self, last: int, events: Sequence[Stored]) -> None:
        """`events` were committed in this order right behind the position `last`: whoever committed that, or before it, nobody
        commits between any more."""
        if not events:
            return
        with self._lock:
            if last != self._end:
                self._start, self._events = last, []
            self._events.extend(events)
            if len(self._events) > 2 * KEPT:
                self._start = self._events[-KEPT - 1].position
                del self._events[:-KEPT]

    def after(self, position: int, limit: int) -> Sequence[Stored]:
        """The events next to `position`; empty where that is not known here."""
        with self._lock:
            if position == self._start:
                return self._events[:limit]
            at = bisect_left(self._events, position, key=_position)
            if at < len(self._events) and self._events[at].position == position:
                return self._events[at + 1 : at + 1 + limit]
            return ()

    @property
    def _end(self) -> int:
        return self._events[-1].position if self._events else self._start


def _position(event: Stored) -> int:
    return event.position
