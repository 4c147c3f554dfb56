"""Rebuilding a view beside the live one, comparing the two at one watermark, and switching. Reads go on throughout.

1. A new, empty version is caught up from the log in bulk, never past the live one. 2. The live version's rows and
watermark are hashed in one snapshot. 3. The new version is brought to exactly that watermark and hashed. 4. A rebuild
then catches up with the live version while that stands still, and switches; a verification drops the new version.
An event that cannot be taken in stops it: while something is parked, live and rebuilt are not comparable.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from domain.errors import Conflict, Unavailable
from projections.engine import Clock, Decoded, Engine, Policy
from projections.ports import Fingerprint, LogReader, Mark, Parking, Poisoned, Record, Sink, Store

BULK = 20_000
"""Records of a batch, about."""

SETTLE_SECONDS = 15.0
"""How long a live view may be in the middle of a batch: another worker goes on after a session."""

_AGAIN_SECONDS = 0.2

Progress = Callable[[int, int], None]
"""Called with (records done, records in all); the second may grow."""


class Verification(Struct, frozen=True, kw_only=True):
    """A live view and what the log makes of it. `watermark` is the next offset per partition, `events` those in the view,
    `version` the one hashed as live; `switched` says whether the rebuilt one took its place."""

    name: str
    version: int
    watermark: dict[int, int]
    events: int
    live_hash: str
    rebuilt_hash: str
    equal: bool
    finished_at: datetime
    switched: bool = False


class Live(Protocol):
    """The live version of a view: its engine, or what its store tells of one that others feed."""

    def marks(self) -> Mapping[int, Mark]:
        """The watermark."""

    @property
    def sink(self) -> Sink:
        """The version in use, to be hashed."""

    def standing_still(self) -> AbstractContextManager[object]:
        """Nothing is fed to it meanwhile."""

    def replace(self, sink: Sink) -> None:
        """Another version became the live one."""


class Projection(Struct, frozen=True):
    """One projection as rebuilding needs it: its versions, the live one, and how to read its topic."""

    store: Store
    live: Live
    reader: Callable[[], LogReader]


class Rebuilder:
    """All projections by name. One rebuild or verification of a projection at a time. Use it from any thread."""

    def __init__(self, projections: Mapping[str, Projection], parking: Parking, clock: Clock) -> None:
        self._projections, self._parking, self._clock = projections, parking, clock
        self._busy = {name: threading.Lock() for name in projections}

    @property
    def names(self) -> list[str]:
        """Every projection."""
        return list(self._projections)

    def verify(self, name: str, progress: Progress | None = None) -> Verification:
        """Compares the live view with what the log makes of it. Changes nothing. Raises as `rebuild` does."""
        return self._run(name, progress or _silent, switch=False)

    def rebuild(self, name: str, progress: Progress | None = None) -> Verification:
        """Makes the view anew and puts the new one in its place, equal or not.

        Raises `KeyError` for an unknown name, `Conflict` (``rebuild_running``, ``projection_poisoned``), `Unavailable`.
        """
        return self._run(name, progress or _silent, switch=True)

    def _run(self, name: str, progress: Progress, *, switch: bool) -> Verification:
        if not self._busy[name].acquire(blocking=False):
            raise Conflict(f"{name} is being rebuilt or verified already", code="rebuild_running")
        try:
            return _Run(self._projections[name], self._parking, self._clock, progress).run(switch=switch)
        except Poisoned as poison:
            raise Conflict(
                f"{name} cannot be rebuilt past {poison}; retry or drop it", code="projection_poisoned"
            ) from poison
        finally:
            self._busy[name].release()


class _Run:
    """One rebuild from beginning to end."""

    def __init__(self, projection: Projection, parking: Parking, clock: Clock, progress: Progress) -> None:
        self._store, self._live = projection.store, projection.live
        self._reader = projection.reader()
        self._clock, self._progress = clock, progress
        self._version = self._store.create()
        sink = self._store.open(self._version)
        self._new = Engine(self._store.name, self._store.topic, sink, parking, Policy.STOP, clock)

    def run(self, *, switch: bool) -> Verification:
        kept = False
        try:
            self._catch_up(self._live.marks())
            live_version = self._store.live()
            live = self._hashed()
            self._catch_up(live.marks)
            rebuilt = self._new.sink.fingerprint()
            if switch:
                self._switch()
                kept = True
            return Verification(
                name=self._store.name,
                version=live_version,
                watermark={partition: mark.offset for partition, mark in sorted(live.marks.items())},
                events=live.events,
                live_hash=live.digest,
                rebuilt_hash=rebuilt.digest,
                equal=live.digest == rebuilt.digest and dict(live.marks) == dict(rebuilt.marks),
                finished_at=self._clock(),
                switched=switch,
            )
        finally:
            self._reader.close()
            if not kept:
                self._new.sink.close()
                self._store.drop(self._version)

    def _hashed(self) -> Fingerprint:
        """The live version. A feeder that died in the middle of a batch leaves it behind its rows until another goes on."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                return self._live.sink.fingerprint()
            except Unavailable as error:
                if error.code not in ("view_behind", "version_replaced") or time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN_SECONDS)

    def _switch(self) -> None:
        self._catch_up(self._live.marks())
        with self._live.standing_still():
            self._catch_up(self._live.marks())
            self._store.switch(self._version)
            self._live.replace(self._new.sink)

    def _catch_up(self, target: Mapping[int, Mark]) -> None:
        """Brings the new version to `target`, to the record. What comes next is read while what came is taken in, and what
        came before is written."""
        marks = self._new.marks()
        at = {partition: marks.get(partition, Mark()).offset for partition in target}
        total = sum(mark.offset for mark in target.values())
        with ThreadPoolExecutor(1) as ahead, self._new.sink.running_ahead():
            coming = ahead.submit(self._read, at, target)
            while True:
                self._progress(sum(at.values()), total)
                come, at = coming.result()
                if not come.records:
                    return
                coming = ahead.submit(self._read, at, target)
                self._new.take(come)

    def _read(self, at: Mapping[int, int], target: Mapping[int, Mark]) -> tuple[Decoded, dict[int, int]]:
        """The next records from `at` on, none of them beyond `target`, and where they end."""
        behind = [partition for partition, mark in target.items() if at[partition] < mark.offset]
        share = max(1, BULK // max(1, len(behind)))
        records: list[Record] = []
        ends = dict(at)
        for partition in behind:
            found = self._reader.read(partition, at[partition], share)
            records += [record for record in found if record.offset < target[partition].offset]
            if found:
                ends[partition] = min(found[-1].offset + 1, target[partition].offset)
        return self._new.decoded(records), ends


def _silent(_done: int, _total: int) -> None:
    return None
