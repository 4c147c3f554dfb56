"""Feeds the projections of one process from the log: a thread each, so that none waits for another.

Guarantees: a projection that fails is tried again with growing pauses and says so in `health` and in the log meanwhile;
no failure ends a thread or is silent. `stop` returns once nothing is being written any more.
"""

import logging
import threading
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from domain.errors import Unavailable
from projections.engine import Clock, Engine
from projections.ports import LogReader, Record

BATCH = 5000
"""Records of a batch, about."""

IDLE = 0.25
"""Seconds between two looks at an idle log: the view is proved to be current that often."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a failed projection is tried again: doubled each time."""

_logger = logging.getLogger(__name__)


class Health(Struct, frozen=True, kw_only=True):
    """How a projection does. `lag` is in records, as of the last look at the log; `as_of` the last moment at which the
    view was seen to hold everything (None: not yet); `error` why it fails at the moment, `failures` in a row."""

    name: str
    running: bool
    lag: int
    as_of: datetime | None
    error: str | None = None
    failures: int = 0

    @property
    def well(self) -> bool:
        """Running, and the last try went through."""
        return self.running and self.error is None


class Feed:
    """One projection and the topic it is fed from. `linger` seconds between small batches spare a store that prefers large
    ones."""

    def __init__(self, engine: Engine, reader: LogReader, clock: Clock, linger: float = 0.0) -> None:
        self.engine, self._reader, self._clock, self._linger = engine, reader, clock, linger
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed-{engine.name}", daemon=True)
        self._error: str | None = None
        self._failures = 0
        self._lag = 0
        self._as_of: datetime | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end after the batch it is at."""
        self._stopping.set()

    def join(self) -> None:
        """Waits until it has ended, and gives the reader back."""
        if self._thread.ident is not None:
            self._thread.join()
        self._reader.close()

    def health(self) -> Health:
        """As of now."""
        return Health(
            name=self.engine.name,
            running=self._thread.is_alive(),
            lag=self._lag,
            as_of=self._as_of,
            error=self._error,
            failures=self._failures,
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
                self._error, self._failures = None, 0
            except Unavailable as error:
                _logger.warning("projection %s: %s", self.engine.name, error)
                self._failed(error)
            except Exception as error:
                _logger.exception("projection %s failed", self.engine.name)
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._error = f"{type(error).__name__}: {error}"
        self._failures += 1
        self._stopping.wait(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 10)))

    def _step(self) -> None:
        """One batch, or one wait at the end of the log."""
        asked = self._clock()
        ends = self._reader.ends()
        offsets = self.engine.offsets(self._reader.partitions)
        behind = [partition for partition, end in enumerate(ends) if end > offsets[partition]]
        self._lag = sum(ends[partition] - offsets[partition] for partition in behind)
        if not behind:
            self._as_of = asked
            self._reader.wait(offsets, IDLE)
            return
        records: list[Record] = []
        for partition in behind:
            records += self._reader.read(partition, offsets[partition], max(1, BATCH // len(behind)))
        self.engine.feed(records)
        if len(records) < BATCH // 2 and self._linger:
            self._stopping.wait(self._linger)


class LocalRunner:
    """All feeds of a process."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = {feed.engine.name: feed for feed in feeds}

    def start(self) -> None:
        for feed in self._feeds.values():
            feed.start()

    def stop(self) -> None:
        """Ends every feed; what is in the views then stays, and the rest comes at the next start."""
        for feed in self._feeds.values():
            feed.stop()
        for feed in self._feeds.values():
            feed.join()

    def health(self) -> dict[str, Health]:
        """Every projection's, by name."""
        return {name: feed.health() for name, feed in self._feeds.items()}
