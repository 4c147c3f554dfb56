"""A log reader that many threads may use at once: a few readers, each for one thread at a time.

Who reads on goes on with the reader that was there last, since one that is turned elsewhere gives up what it fetched ahead.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from projections.ports import LogReader, Record

READERS = 4
"""At most; who comes when all are used waits for one."""


class SharedReader:
    """`projections.ports.LogReader` over those that `make` makes, when they are needed."""

    def __init__(self, make: Callable[[], LogReader], readers: int = READERS) -> None:
        self._make, self._left = make, readers
        first = make()
        self.topic, self.partitions = first.topic, first.partitions
        self._idle: list[tuple[LogReader, tuple[int, int] | None]] = [(first, None)]
        self._free = threading.Condition()
        self._left -= 1

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """See `LogReader`."""
        with self._borrowed((partition, offset)) as (reader, leave):
            records = reader.read(partition, offset, limit)
            leave((partition, records[-1].offset + 1 if records else offset))
            return records

    def ends(self) -> Sequence[int]:
        """See `LogReader`."""
        with self._borrowed(None) as (reader, _):
            return reader.ends()

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        """See `LogReader`."""
        with self._borrowed(None) as (reader, leave):
            leave(None)
            return reader.wait(seen, timeout)

    def close(self) -> None:
        """See `LogReader`. Nobody may use it any more."""
        with self._free:
            while self._idle:
                self._idle.pop()[0].close()

    @contextmanager
    def _borrowed(
        self, place: tuple[int, int] | None
    ) -> Iterator[tuple[LogReader, Callable[[tuple[int, int] | None], None]]]:
        reader, at = self._take(place)

        def leave(now: tuple[int, int] | None) -> None:
            nonlocal at
            at = now

        try:
            yield reader, leave
        finally:
            with self._free:
                self._idle.append((reader, at))
                self._free.notify()

    def _take(self, place: tuple[int, int] | None) -> tuple[LogReader, tuple[int, int] | None]:
        """The reader that is at `place`; else one that is nowhere, a new one, or the one that was not used for longest."""
        with self._free:
            while True:
                places = [at for _, at in self._idle]
                if place in places:
                    return self._idle.pop(places.index(place))
                if None in places:
                    return self._idle.pop(places.index(None))
                if self._left:
                    self._left -= 1
                    return self._make(), None
                if self._idle:
                    return self._idle.pop(0)
                self._free.wait()
